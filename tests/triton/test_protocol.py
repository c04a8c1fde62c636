"""What travels between a server and its clients: a code for each refusal, whatever the sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

import dualsmooth as ds
from dualsmooth.runtime.errors import DualSmoothError, ServerError
from dualsmooth.runtime.serving import protocol
from dualsmooth.runtime.serving.protocol import FAILED, REFUSALS, Refusal, from_line, refusal_of, to_line

STATUSES = {"INVALID_ARG": "INVALID_ARGUMENT"}
"""What gRPC calls Triton's statuses, where it is another name."""
SENTENCES = ("no", "dualsmooth.full: a sentence: with a code in it", "a\nb", "", "ß" * 3000)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
class TestEachRefusal:
    @pytest.mark.parametrize("sentence", SENTENCES)
    def test_it_survives_the_wire(self, refusal: Refusal, sentence: str) -> None:
        error = refusal.kind(sentence)
        assert refusal_of(error) is refusal
        assert from_line(to_line(error)) == (refusal.kind, str(error))

    def test_it_is_documented(self, refusal: Refusal) -> None:
        line = f"| `{refusal.code}` | `{STATUSES.get(refusal.status, refusal.status)}` | "
        assert line in Path("docs/triton.md").read_text()

    def test_clients_get_a_public_error(self, refusal: Refusal) -> None:
        assert issubclass(refusal.kind, ds.ServerError | ds.InputError)


def test_every_class_has_a_code() -> None:
    leaves = {
        kind
        for kind in vars(protocol).values()
        if isinstance(kind, type) and issubclass(kind, ServerError) and kind is not ServerError
        if not kind.__subclasses__()
    }
    assert leaves == {refusal.kind for refusal in REFUSALS} - {ds.InputError}
    assert len({refusal.code for refusal in REFUSALS}) == len(REFUSALS)


@pytest.mark.parametrize("error", [ds.EngineError("NaN"), ds.CertificateError("?"), DualSmoothError("odd")])
def test_what_is_no_refusal_is_a_failure(error: DualSmoothError) -> None:
    assert refusal_of(error) is FAILED
    assert from_line(to_line(error)) == (protocol.Failed, str(error))


@pytest.mark.parametrize(
    "line", ["", "no", "dualsmooth", "dualsmooth.full:x", "dualsmooth.FULL: x", " dualsmooth.full: x"]
)
def test_lines_without_a_code_stay_as_they_are(line: str) -> None:
    assert from_line(line) == (None, line)


def test_unknown_codes_leave_the_sentence() -> None:
    assert from_line("dualsmooth.tired: ask tomorrow") == (None, "ask tomorrow")
