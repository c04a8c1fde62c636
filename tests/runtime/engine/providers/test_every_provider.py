"""What every provider must pass, just by being in the table."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers import PROVIDERS, nvidia, parse_options, provider_of
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.engine.wheels import WHEELS, offered, onnxruntime_for
from dualsmooth.runtime.errors import BundleError

SHAPE = (256, 3, 32, 32)
USUAL = {"device": "1", "precision": "fp16", "cache": "/tmp/engines"}
"""Text that options of these names take; others take one by their type."""


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> type[Provider]:
    return PROVIDERS[request.param]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toys.two_levels(tmp_path / "b")


def another(name: str, default: Any) -> str:
    """Text that is not the default of an option."""
    if isinstance(default, bool):
        return "off" if default else "on"
    return "3" if isinstance(default, int) else USUAL[name]


def tuned(provider: type[Provider]) -> Provider:
    return provider_of(provider.name, {f.name: another(f.name, f.default) for f in fields(provider)})


def one_line(text: str) -> bool:
    return text.isprintable() and "  " not in text


def test_its_facts(provider: type[Provider]) -> None:
    assert provider.name.islower()
    assert provider.name.isidentifier()
    assert provider.onnxruntime_name.endswith("ExecutionProvider")
    assert provider.wheel in WHEELS
    assert f'\n{provider.extra} = ["{provider.wheel}' in Path("pyproject.toml").read_text()
    assert provider.seconds > 0
    assert sum(p.onnxruntime_name == provider.onnxruntime_name for p in PROVIDERS.values()) == 1


def test_it_is_described(provider: type[Provider]) -> None:
    """In docs/engines.md, and each option where its class is."""
    text = Path("docs/engines.md").read_text()
    assert f"\n| `{provider.name}` | " in text
    said = "".join(kind.__doc__ or "" for kind in provider.__mro__ if issubclass(kind, Provider))
    for option in fields(provider):
        assert f"\n| `{option.name}` | " in text
        assert f"- `{option.name}`" in said


def test_options_are_given_as_values_or_text(provider: type[Provider]) -> None:
    changed = tuned(provider)
    assert list(changed.given()) == [f.name for f in fields(provider)]
    assert provider.read(changed.given()) == changed
    texts = [f"{name}={value}" for name, value in changed.given().items()]
    assert provider_of(provider.name, parse_options(texts)) == changed
    plain = provider_of(provider.name)
    assert plain.given() == {}
    assert plain == provider()


def test_other_options_are_refused_in_one_line(provider: type[Provider]) -> None:
    everyone = {f.name for p in PROVIDERS.values() for f in fields(p)}
    for name in [*sorted(everyone - {f.name for f in fields(provider)}), "speed", "name", "a\nb", ""]:
        with pytest.raises(
            ds.InputError, match=f"provider {provider.name} has no option .*; expected one of"
        ) as caught:
            provider.read({name: "1"})
        assert one_line(str(caught.value))


def test_values_of_another_type_are_refused_in_one_line(provider: type[Provider]) -> None:
    for option in fields(provider):
        if isinstance(option.default, bool | int):
            for bad in ("maybe", "", "1.5", None, [], -1, "9" * 30 + "x"):
                with pytest.raises(ds.InputError, match=f"option {option.name} is .*; expected ") as caught:
                    provider.read({option.name: bad})
                assert one_line(str(caught.value))


def test_sessions_are_told_everything_as_text(provider: type[Provider]) -> None:
    for made in (provider(), tuned(provider)):
        given = made.session_options(threads=2, lanes=2, shape=SHAPE)
        assert all(isinstance(part, str) for pair in {**given, **made.entries()}.items() for part in pair)
        settings = SimpleNamespace(entries={})
        settings.add_session_config_entry = settings.entries.__setitem__
        made.tune(settings)
        assert settings.entries == made.entries()
        if made.brings_libraries:
            assert settings.entries["session.disable_cpu_ep_fallback"] == "1"


def test_what_changes_the_arithmetic_is_named(provider: type[Provider]) -> None:
    changes = {"precision", "tf32"} & {f.name for f in fields(provider)}
    for name in changes:
        default = next(f.default for f in fields(provider) if f.name == name)
        assert provider.read({name: another(name, default)}).arithmetic() != provider().arithmetic()
    assert one_line(tuned(provider).arithmetic())


def test_lanes_and_shapes(provider: type[Provider]) -> None:
    for made in (provider(), tuned(provider)):
        for threads in (0, 1, 4):
            lanes, together = made.lanes_and_threads(threads, 3 * 32 * 32)
            assert lanes >= 1
            assert together == 0 or together >= max(threads, lanes)
        assert not (made.keeps_shape() and made.lanes_and_threads(4, 784)[0] > 1)


def test_what_is_missing_is_one_line_with_a_fix(provider: type[Provider], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "library", lambda stem: None)
    if reason := provider.why_missing():
        assert one_line(reason)
        assert "install" in reason
    for precision in ("fp32", "bf16"):
        error = provider().not_opened(Path("a/b.onnx"), precision, RuntimeError("no\nkernel"))
        assert isinstance(error, ds.ProviderError | BundleError)
        assert "b.onnx" in str(error) or reason in str(error)
        assert one_line(str(error))


def test_it_opens_or_says_what_to_install(provider: type[Provider], bundle: Path) -> None:
    """Where this machine has it, it votes, and certificates name it; elsewhere the wheel is named."""
    if provider.name not in offered(onnxruntime):
        with pytest.raises(ds.ProviderError, match=rf"provider {provider.name} .*'dualsmooth\[{provider.extra}\]'"):
            onnxruntime_for(provider)
        return
    if reason := provider.why_missing():
        with pytest.raises(ds.ProviderError) as caught:
            OnnxEngine(ds.read_bundle(bundle), provider())
        assert reason in str(caught.value)
        return
    with ds.load(bundle, provider.name, threads=1, batch_size=64) as smoother:
        certificate = smoother.certify(toys.image(0.7, 0.3), budget=ds.Fixed(100), seed=1)
        assert smoother.engine.settings()["provider"] == provider.name
    assert certificate.artefact.provider == provider.name
    assert certificate.artefact.engine.startswith(f"onnxruntime {onnxruntime.__version__}")
    assert provider().arithmetic() in certificate.artefact.engine
    assert ds.Certificate.from_json(certificate.to_json()).artefact == certificate.artefact
