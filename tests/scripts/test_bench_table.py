"""The page of speeds: each part replaces its own section."""

from __future__ import annotations

from pathlib import Path

import bench_table
import bench_user
import pytest

import dualsmooth as ds

AMX, VNNI, NEITHER = bench_table.KINDS


def no_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("user", "throughput_lines", "choices", "latency", "memory"):
        monkeypatch.setattr(bench_table, name, lambda *_, name=name: [f"new {name}"])
    monkeypatch.setattr(bench_table, "first_certificate", lambda args: 1.25)


def machine(monkeypatch: pytest.MonkeyPatch, *, amx: bool, int8: bool) -> None:
    monkeypatch.setattr(bench_table, "has_amx", lambda: amx)
    monkeypatch.setattr(bench_table, "has_int8", lambda: int8)


def parts(page: str, kind: str) -> dict[str, str]:
    return bench_table.sections(bench_table.sections(page)[kind], "###")


def test_a_part_leaves_the_others_and_the_other_kind_of_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "bench.md"
    page.write_text(
        f"# Speed\n\nAn old head.\n\n## {VNNI}\n\n### One certificate\n\nold\n\n### Behind Triton\n\n"
        "by hand\n\n- kept\n"
    )
    no_measurements(monkeypatch)
    machine(monkeypatch, amx=False, int8=True)
    asked = ["--results", str(tmp_path / "rows"), "--out", str(page)]
    bench_table.main(["--parts", "memory,latency", "--images", "7", *asked])
    found = parts(page.read_text(), VNNI)
    assert list(found) == ["One certificate", "Memory of `evaluate`", "Behind Triton"]
    assert found["Behind Triton"] == "by hand\n\n- kept"
    assert "old" not in found["One certificate"]
    assert "new latency" in found["One certificate"]
    assert "--parts memory,latency --images 7" in found["One certificate"]  # how it was made
    machine(monkeypatch, amx=False, int8=False)
    bench_table.main(["--parts", "memory", "--images", "7", *asked])
    assert list(parts(page.read_text(), NEITHER)) == ["Memory of `evaluate`"]
    machine(monkeypatch, amx=True, int8=True)
    bench_table.main(["--images", "7", *asked])
    assert list(bench_table.sections(page.read_text())) == [AMX, VNNI, NEITHER]
    assert parts(page.read_text(), VNNI) == found
    with_amx = parts(page.read_text(), AMX)
    assert list(with_amx)[:3] == ["What a user gets", "Throughput", "Choices"]
    assert "Behind Triton" not in with_amx
    with pytest.raises(SystemExit):
        bench_table.main(["--parts", "memory,speed", *asked])


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is written as it ends, and what was measured before the stop is not measured again."""
    no_measurements(monkeypatch)
    page, seen = tmp_path / "bench.md", []

    def latency(_: object) -> list[str]:
        seen.append("latency")
        return ["milliseconds"]

    def stopped(*_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_table, "latency", latency)
    monkeypatch.setattr(bench_table, "memory", stopped)
    asked = ["--parts", "latency,memory", "--results", str(tmp_path / "rows"), "--out", str(page)]
    with pytest.raises(KeyboardInterrupt):
        bench_table.main(asked)
    assert "milliseconds" in page.read_text()
    monkeypatch.setattr(bench_table, "memory", lambda *_: ["megabytes"])
    bench_table.main(asked)
    assert seen == ["latency"]
    assert "milliseconds" in page.read_text()
    assert "megabytes" in page.read_text()
    with pytest.raises(ds.InputError, match="other settings"):  # never mixed with others
        bench_table.main([*asked, "--images", "3"])


def test_what_a_thousand_certificates_cost() -> None:
    """Two cores that make 50 passes a second: 1,800 certificates of 100 passes an hour, so 2/1.8 core-hours a 1,000."""
    expected = 1000 / 1800 * bench_user.cores()
    cells = [cell.replace(",", "") for cell in bench_user.row(100.0, 50.0, 0.5).split(" | ")]
    assert cells[:2] == ["100", "1800"]
    assert float(cells[2]) == pytest.approx(expected, rel=0.01)
    assert float(cells[3]) == pytest.approx(expected / 2, rel=0.05)


def test_the_looks_of_a_certificate_are_asked_for_again() -> None:
    looks = [("estimator/0/selection", [50]), ("classifier/1/estimation", [32, 40, 900])]
    assert bench_user.total(looks) == 950
    asked = [(str(r.stream.stage), r.until) for (r,) in bench_user.again(looks, 10_000)]
    assert asked == [("estimator", 50), ("classifier", 32), ("classifier", 40), ("classifier", 900)]
    assert [r.until for (r,) in bench_user.again(looks, 200)] == [50, 32, 40, 100]


def test_networks_of_imagenet_size_get_small_batches() -> None:
    sizes = {name: bench_table.large(name) for name in bench_table.networks.SPECS}
    assert sizes == {**dict.fromkeys(bench_table.networks.SPECS, False), "resnet50-224": True}
