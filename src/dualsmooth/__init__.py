"""dualsmooth: certified inference by dual randomized smoothing (Sun, Mao, Vechev, ICLR 2026, and beyond)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualsmooth import runtime
from dualsmooth.runtime import __all__ as __all__

if TYPE_CHECKING:
    from dualsmooth.runtime import *  # noqa: F403

    __version__: str
else:

    def __getattr__(name: str) -> Any:
        """What the runtime exports, imported on first use; and the version that is installed."""
        if name == "__version__":
            from importlib.metadata import version

            return version("dualsmooth")
        if name in __all__:
            return getattr(runtime, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
