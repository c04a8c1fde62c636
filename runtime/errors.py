"""Every error that dualsmooth raises on purpose derives from `DualSmoothError`.

A message is one line and says three things: what was passed, what was expected, and the fix.
"""

from collections.abc import Iterable

MAX_LINE = 900


class DualSmoothError(Exception):
    """Base of all public errors. What a message quotes may come from anywhere: it can neither break the line nor steer
    a terminal."""

    def __str__(self) -> str:
        line = " ".join(super().__str__().split())
        return printable(line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}…")


class InputError(DualSmoothError, ValueError):
    """An argument, image or file given by the caller cannot be used."""


class BundleError(DualSmoothError):
    """A bundle is incomplete, damaged, altered, or does not fit its manifest."""


class EngineError(DualSmoothError):
    """A base model failed while it was evaluated; no certificate comes out of such a run."""


class ProviderError(DualSmoothError):
    """The execution provider that was asked for is not the one that would run."""


class ServerError(DualSmoothError):
    """A server cannot be reached, refuses a request, or gave it up; no certificate came out of it."""


class CertificateError(DualSmoothError):
    """A certificate does not follow from its own counts, or belongs to another bundle."""


def printable(text: str) -> str:
    """Text of others on one line: what could break the line or steer a terminal is a question mark.

    >>> printable("a\\nb")
    'a?b'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def one_of(names: Iterable[str]) -> str:
    """What was expected, in words: a, b or c."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def one_line(error: BaseException) -> str:
    """The message of a foreign error, for use inside one of ours: one line, cut at 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
