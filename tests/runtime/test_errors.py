"""A message is one line that cannot steer a terminal, whatever it quotes."""

from __future__ import annotations

import dualsmooth as ds


def test_one_printable_line() -> None:
    assert str(ds.InputError("a\nb\u2028c  \x1b[31m\ud800")) == "a b c ?[31m?"


def test_a_message_has_an_end() -> None:
    assert len(str(ds.BundleError("x" * 10_000))) < 1000
