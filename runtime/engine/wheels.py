"""The wheels of ONNX Runtime: which are installed, whether they clash, and the one that a provider needs."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from dualsmooth.runtime.engine.providers import PROVIDERS
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.errors import ProviderError, one_line

WHEELS = (*dict.fromkeys(provider.wheel for provider in PROVIDERS.values()), "onnxruntime-directml")
"""They overwrite each other's files: an environment can hold one of them."""


def installed_wheels() -> dict[str, str]:
    """Those that pip knows of, with their versions."""
    found = {}
    for name in WHEELS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def clash() -> tuple[str, str] | None:
    """What is wrong with the installed wheels, and how to mend it."""
    wheels = installed_wheels()
    if len(wheels) < 2:
        return None
    first, *others, last = dict.fromkeys(f"[{provider.extra}]" for provider in PROVIDERS.values())
    extras = ", ".join([f"dualsmooth{first}", *others]) + f" or {last}"
    return (
        f"{' and '.join(wheels)} are installed together and overwrite each other's files",
        f"pip uninstall -y {' '.join(wheels)}; then install one extra: {extras}",
    )


def offered(onnxruntime: Any) -> list[str]:
    """Our names of the providers that an ONNX Runtime offers."""
    theirs = onnxruntime.get_available_providers()
    return [name for name, provider in PROVIDERS.items() if provider.onnxruntime_name in theirs]


def onnxruntime_for(provider: type[Provider]) -> Any:
    """The module `onnxruntime` of an environment that can run `provider`. Raises `ProviderError`."""
    if clashing := clash():
        raise ProviderError(f"provider {provider.name}: {clashing[0]}; mend it with: {clashing[1]}")
    install = f"pip install 'dualsmooth[{provider.extra}]'"
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            raise ProviderError(f"onnxruntime is not installed; install one engine, e.g. {install}") from error
        raise ProviderError(f"onnxruntime cannot be imported ({one_line(error)}); run `dualsmooth doctor`") from error
    if provider.name not in offered(onnxruntime):
        wheels = " ".join(installed_wheels()) or "onnxruntime"
        raise ProviderError(
            f"provider {provider.name} is not in the installed {wheels} {onnxruntime.__version__}, which offers "
            f"{', '.join(offered(onnxruntime)) or 'none that dualsmooth uses'}; pip uninstall -y {wheels}; {install}"
        )
    if provider.brings_libraries:
        onnxruntime.set_default_logger_severity(4)  # what fails is raised
    provider.prepare(onnxruntime)
    return onnxruntime
