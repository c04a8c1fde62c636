"""The page of speeds: each part replaces its own section."""

from __future__ import annotations

from pathlib import Path

import bench_table
import pytest


def test_a_part_leaves_the_other_sections_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "bench.md"
    page.write_text("# Speed\n\nAn old head.\n\n## One certificate\n\nold\n\n## Behind Triton\n\nby hand\n\n- kept\n")
    for name in ("throughput_lines", "choices", "latency", "memory"):
        monkeypatch.setattr(bench_table, name, lambda args, name=name: [f"new {name}"])
    monkeypatch.setattr(bench_table, "first_certificate", lambda args: 1.25)
    bench_table.main(["--parts", "memory,latency", "--images", "7", "--out", str(page)])
    found = bench_table.sections(page.read_text())
    assert list(found) == ["One certificate", "Memory of `evaluate`", "Behind Triton"]
    assert found["Behind Triton"] == "by hand\n\n- kept"
    assert "old" not in found["One certificate"]
    assert "new latency" in found["One certificate"]
    assert "--parts memory,latency --images 7" in found["One certificate"]  # how it was made
    bench_table.main(["--out", str(page)])
    assert list(bench_table.sections(page.read_text()))[:2] == ["Throughput", "Choices"]
    with pytest.raises(SystemExit):
        bench_table.main(["--parts", "memory,speed", "--out", str(page)])


def test_networks_of_imagenet_size_get_small_batches() -> None:
    sizes = {name: bench_table.large(name) for name in bench_table.networks.SPECS}
    assert sizes == {"shipped-cnn": False, "resnet20": False, "resnet110": False, "resnet50-224": True}
