"""Signatures over bundles and results files: Ed25519 in a DSSE envelope, rows bound by a hash chain (docs/security.md).

DSSE (github.com/secure-systems-lab/dsse, protocol 1.0.2) signs "DSSEv1" and the lengths and texts of type and body. The
body says what a file is; a reader makes it anew from the file at hand and compares.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.bundle.reading import MANIFEST, read_bundle
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.files import write_atomically

PAYLOAD_TYPE = "application/vnd.dualsmooth.statement+json; version=1"
SUFFIX = ".dsse.json"
MAX_ENVELOPE = 1 << 20
CHAIN = b"chain of lines, 1"


def statement_of(path: str | Path) -> dict[str, Any]:
    """What a signature of `path` says: of a bundle's folder, the manifest's SHA-256 (all files are checked against it);
    of a file, its number of lines and the end of their hash chain. Raises `InputError`, `BundleError`."""
    path = Path(path)
    if path.is_dir():
        return {"kind": "bundle", "manifest_sha256": read_bundle(path).manifest_sha256}
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected a results file or a bundle") from error
    if not lines:
        raise InputError(f"{path} is empty; expected a results file or a bundle")
    return {"kind": "lines", "lines": len(lines), "chain": chained(lines)}


def chained(lines: list[bytes]) -> str:
    """The end of the hash chain of lines: h_0 = SHA-256(CHAIN), h_i = SHA-256(h_(i-1), SHA-256(line i)). A line that is
    altered, dropped, added or moved gives another end."""
    link = hashlib.sha256(CHAIN).digest()
    for line in lines:
        link = hashlib.sha256(link + hashlib.sha256(line).digest()).digest()
    return link.hex()


def encoded(kind: str, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    text = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(text), text, len(body), body)


def signature_path(path: str | Path) -> Path:
    """Where the signature of a file or bundle lies: beside it."""
    path = Path(os.path.abspath(path))
    return path.with_name(path.name + SUFFIX)


def sign(path: str | Path, key: str | Path) -> Path:
    """Write the envelope of `path` beside it, signed with the private key of the PEM file `key`; returns where. Raises
    `InputError`."""
    keys = _keys()
    private = keys.private_key(Path(key))
    body = json.dumps(statement_of(path), sort_keys=True).encode()
    signature = private.sign(encoded(PAYLOAD_TYPE, body))
    envelope = {
        "payload": base64.b64encode(body).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": keys.key_id(private.public_key()), "sig": base64.b64encode(signature).decode()}],
    }
    out = signature_path(path)
    write_atomically(out, json.dumps(envelope) + "\n")
    return out


def require_signed(path: str | Path, key: str | Path) -> str:
    """The id of the public key of the PEM file `key`, which signed `path` as it is now. Raises `CertificateError`
    unless it did, `InputError` for files that cannot be read."""
    keys, where = _keys(), signature_path(path)
    public = keys.public_key(Path(key))
    try:
        with open(where, "rb") as file:
            envelope = strict_json.loads(file.read(MAX_ENVELOPE))
        body = base64.b64decode(envelope["payload"], validate=True)
        kind, signatures = envelope["payloadType"], [base64.b64decode(s["sig"]) for s in envelope["signatures"]]
    except OSError as error:
        raise InputError(f"cannot read {where}: {error.strerror}; expected the signature of {path}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CertificateError(f"{where} is no DSSE envelope ({type(error).__name__})") from error
    if kind != PAYLOAD_TYPE:
        raise CertificateError(f"{where} holds {str(kind)[:60]!r}; expected {PAYLOAD_TYPE!r}")

    if not any(keys.holds(public, signature, encoded(kind, body)) for signature in signatures):
        raise CertificateError(f"{where} is not signed by the key in {key}, or was altered")
    signed, found = strict_json.loads(body), statement_of(path)
    if signed != found:
        raise CertificateError(f"{path} is not what was signed: {_difference(signed, found)}")
    return str(keys.key_id(public))


def make_key(path: str | Path) -> Path:
    """`keys.make_key`."""
    return Path(_keys().make_key(Path(path)))


def _keys() -> ModuleType:
    """What knows the package cryptography. Raises `InputError` where that is not installed."""
    try:
        return import_module("dualsmooth.runtime.evaluation.keys")
    except ModuleNotFoundError as error:
        raise InputError(f"signatures need {error.name}; pip install 'dualsmooth[signing]'") from error


def _difference(signed: Any, found: dict[str, Any]) -> str:
    if not isinstance(signed, dict) or signed.get("kind") != found["kind"]:
        return f"that is another kind of thing than {found['kind']}"
    if found["kind"] == "bundle":
        return f"a bundle with manifest {str(signed.get('manifest_sha256'))[:16]}…; {MANIFEST} has another one"
    if signed.get("lines") != found["lines"]:
        return f"that had {str(signed.get('lines'))[:20]} lines; it has {found['lines']}"
    return "a line was altered or moved"
