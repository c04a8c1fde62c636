"""How a setting that cannot be used is refused."""

from __future__ import annotations

from dualsmooth.runtime.errors import InputError


def need(ok: bool, found: str, expected: str) -> None:
    """Raise `InputError` unless `ok`: what was `found` in the configuration, and what was `expected`."""
    if not ok:
        raise InputError(f"{found}; expected {expected}; change it in the configuration")


def need_from(section: str, settings: object, least: float, *keys: str) -> None:
    """Each setting `keys` of a section must be `least` or more."""
    for key in keys:
        value = getattr(settings, key)
        expected = "a number from 0" if least == 0 else f"at least {least:g}"
        need(value >= least, f"{section}.{key} is {value}", expected)


def need_share(section: str, settings: object, *keys: str) -> None:
    """Each setting `keys` of a section must be a share from 0 to 1."""
    for key in keys:
        value = getattr(settings, key)
        need(0 <= value <= 1, f"{section}.{key} is {value}", "a share from 0 to 1")
