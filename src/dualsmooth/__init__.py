"""dualsmooth: certified inference by dual randomized smoothing (Sun, Mao, Vechev, ICLR 2026, and beyond)."""

from dualsmooth.runtime import *  # noqa: F403
from dualsmooth.runtime import __all__ as __all__
