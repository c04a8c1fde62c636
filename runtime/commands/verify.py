"""`dualsmooth verify`: does a certificate follow from its counts, is it about this bundle, are its votes real?"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.commands.options import BUNDLE_HELP, engine_of, engine_options, examples, open_smoother
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.evaluation.results import HEADER, Result
from dualsmooth.runtime.evaluation.signing import require_signed
from dualsmooth.runtime.rounding import shown
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.deriver import Deriver
from dualsmooth.runtime.smoothing.smoother import Smoother, load

Seen = dict[tuple[int, int], int]
"""On which line of the file a noise was met first: by its entropy and index."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth verify certificate.json",
        "dualsmooth verify certificate.json --bundle fashion-mnist --replay image.png --strict",
    )
    parser.add_argument("certificate", type=Path, help="a JSON certificate, one a line, or a results file")
    parser.add_argument(
        "--bundle",
        help=f"check that it is about this bundle: {BUNDLE_HELP} (default: recompute the radius alone)",
    )
    parser.add_argument("--old", metavar="BUNDLE", help="whose votes a derived certificate rests on (default: none)")
    parser.add_argument(
        "--key", type=Path,
        help="check the signature beside the file: Ed25519 public key, PEM (default: none is checked)",
    )  # fmt: skip
    parser.add_argument(
        "--replay", type=Path, metavar="IMAGE", help="draw the votes again for this image (default: no replay)"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="also refuse fixed seeds, shared noise and noise used twice; needs --bundle",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.bundle is None and (args.replay is not None or args.strict):
        why = "--replay needs the bundle that drew the votes" if args.replay else "--strict checks against your bundle"
        raise InputError(f"{why}; add --bundle BUNDLE")
    if args.old is not None and args.bundle is None:
        raise InputError(
            "--old is the bundle whose votes a derived certificate rests on; add --bundle, which it is about"
        )
    if args.key is not None:
        signed = require_signed(args.certificate, args.key)
        print(f"{args.certificate}: signed by key {signed[:16]}…, and not altered since", file=sys.stderr)
    lines = _lines(args.certificate)
    smoother = open_smoother(args) if args.bundle is not None else None
    deriver = Deriver(load(args.old, **engine_of(args)), smoother) if smoother is not None and args.old else None
    seen: Seen = {}
    for number, line in enumerate(lines, 1):
        try:
            print(_checked(line, number, args, smoother, seen, deriver))
        except CertificateError as error:
            raise CertificateError(f"{args.certificate}, line {number}: {error}") from error
    return 0


def _lines(path: Path) -> list[str]:
    """The certificates of a file: one JSON object, on however many lines, or one a line; the header of a results file
    is passed over. Raises `InputError`."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}); expected a JSON certificate") from error
    try:
        strict_json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip() and HEADER not in line[:60]]
        if not lines:
            raise InputError(f"{path} is empty; expected a JSON certificate") from None
        return lines
    return [text]


def _checked(
    line: str,
    number: int,
    args: argparse.Namespace,
    smoother: Smoother | None,
    seen: Seen,
    deriver: Deriver | None = None,
) -> str:
    """What was checked of one certificate, or row of a results file, and what is only the issuer's word. Raises
    `CertificateError`."""
    stated = _stated(line)
    certificate = Certificate.from_dict(stated)
    checked = ["radius follows from the votes"]
    if smoother is not None:
        smoother.verify(certificate)
        checked.append("files match the bundle")
    if deriver is not None:
        deriver.verify(certificate)
        checked.append("the votes are about the old bundle")
    if args.strict:
        _strict(certificate, stated["radius"], seen, number)
        checked.append("own noise from the system's entropy")
    if smoother is not None and args.replay is not None:
        (deriver or smoother).replay(certificate, args.replay)
        checked.append("replayed votes are identical")
    about = [certificate.artefact.about] if certificate.artefact.about else []
    notes = [*about, *certificate.caveats(), *_word(certificate, smoother, replayed=args.replay is not None)]
    if args.json:
        result = {
            "valid": True, "strict": args.strict, "label": certificate.label, "radius": certificate.radius,
            **({"group": certificate.group, "answer": list(certificate.answer)} if certificate.terms.coarser else {}),
            "checked": checked, "notes": notes,
        }  # fmt: skip
        return json.dumps(result)
    text = "; ".join([*checked, *(f"note: {note}" for note in notes)])
    return f"valid: radius {shown(certificate.radius, 6)}; {text}"


def _stated(line: str) -> Any:
    """The JSON of a certificate, alone or in a row of a results file. Raises `CertificateError`."""
    try:
        data = strict_json.loads(line)
    except ValueError as error:
        raise CertificateError(f"certificate is not JSON ({str(error)[:80]})") from error
    return data["certificate"] if isinstance(data, dict) and set(data) == set(Result.__dataclass_fields__) else data


def _word(certificate: Certificate, smoother: Smoother | None, *, replayed: bool) -> list[str]:
    """What no check here can show, so that it is the issuer's word."""
    stated = certificate.artefact
    notes = [] if replayed else ["the votes are the issuer's word (no --replay)"]
    if smoother is None or not replayed:
        notes.append(f"so is that they were drawn by {stated.provider}, {stated.engine}")
    elif (stated.provider, stated.engine) != (smoother.engine.provider, smoother.engine.name):
        notes.append(
            f"that they were drawn by {stated.provider}, {stated.engine} is the issuer's word: replayed on "
            f"{smoother.engine.provider}, {smoother.engine.name}"
        )
    groups = certificate.terms.groups
    if smoother is not None and groups is not None and groups != smoother.bundle.groups:
        notes.append("its groups are not the bundle's: the issuer chose them")
    if not replayed or certificate.version != version("dualsmooth"):
        notes.append(f"that version {certificate.version} of dualsmooth issued it is the issuer's word")
    return notes


def _strict(certificate: Certificate, radius: float, seen: Seen, line: int) -> None:
    """What `verify --strict` asks beyond `verify --bundle`: no caveats, no stated radius above the recomputed one, and
    no noise used twice in the file."""
    if radius > certificate.radius:
        raise CertificateError(f"radius is stated as {radius}, but the votes give {certificate.radius} at most")
    for caveat in certificate.caveats():
        raise CertificateError(f"{caveat}; --strict expects own noise, from the system's entropy, for these terms")
    seed = certificate.seed
    other = seen.setdefault((seed.entropy, seed.index), line)
    if other != line:
        raise CertificateError(f"its noise is that of line {other}; --strict expects own noise for each certificate")
