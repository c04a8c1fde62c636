"""Signatures: others' vectors, and every change of a signed file or bundle is seen."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import toys

from dualsmooth.cli import main
from dualsmooth.runtime.errors import BundleError, CertificateError, InputError
from dualsmooth.runtime.evaluation import signing

pytest.importorskip("cryptography", reason="needs the extra signing")

ROWS = b'{"header": 1}\n{"row": 1}\n{"row": 2}\n{"row": 3}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "r.jsonl").write_bytes(ROWS)
    signing.make_key(tmp_path / "key")
    signing.sign(tmp_path / "r.jsonl", tmp_path / "key")
    return tmp_path / "r.jsonl"


def test_the_encoding_is_that_of_the_specification() -> None:
    """DSSE, protocol.md: its test vector."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert signing.encoded("http://example.com/HelloWorld", b"hello world") == expected


def test_a_signature_of_rfc_8032_holds() -> None:
    """Section 7.1, test 1: an empty message."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from dualsmooth.runtime.evaluation import keys

    public = Ed25519PublicKey.from_public_bytes(
        bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    )
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert keys.holds(public, signature, b"")
    assert not keys.holds(public, signature, b"a")


def test_what_was_signed_is_accepted(file: Path) -> None:
    key = file.with_name("key.pub")
    envelope = json.loads(file.with_name("r.jsonl.dsse.json").read_text())
    assert signing.require_signed(file, key) == envelope["signatures"][0]["keyid"]
    assert json.loads(base64.b64decode(envelope["payload"]))["lines"] == 4
    assert file.with_name("key").stat().st_mode & 0o077 == 0


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "altered": lambda rows: rows.replace(b"2", b"9"),
    "dropped": lambda rows: rows.replace(b'{"row": 2}\n', b""),
    "cut off": lambda rows: rows[:-11],
    "added": lambda rows: rows + b'{"row": 4}\n',
    "twice": lambda rows: rows + b'{"row": 3}\n',
    "moved": lambda rows: b"".join(rows.splitlines(keepends=True)[i] for i in (0, 2, 1, 3)),
    "joined": lambda rows: rows.replace(b"}\n{", b"} {", 1),
    "other ends": lambda rows: rows.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_the_rows_shows(file: Path, change: Callable[[bytes], bytes]) -> None:
    file.write_bytes(change(ROWS))
    with pytest.raises(CertificateError, match="is not what was signed"):
        signing.require_signed(file, file.with_name("key.pub"))


def test_another_key_and_an_altered_envelope_are_refused(file: Path, tmp_path: Path) -> None:
    other = signing.make_key(tmp_path / "other")
    with pytest.raises(CertificateError, match="is not signed by the key"):
        signing.require_signed(file, other)
    where = file.with_name("r.jsonl.dsse.json")
    envelope = json.loads(where.read_text())
    file.write_bytes(ROWS + b"{}\n")
    body = json.dumps(signing.statement_of(file), sort_keys=True).encode()
    where.write_text(json.dumps({**envelope, "payload": base64.b64encode(body).decode()}))
    with pytest.raises(CertificateError, match="is not signed by the key"):
        signing.require_signed(file, file.with_name("key.pub"))
    for text, said in (("{}", "no DSSE envelope"), ("[", "no DSSE envelope"), ('"a"', "no DSSE envelope")):
        where.write_text(text)
        with pytest.raises(CertificateError, match=said):
            signing.require_signed(file, file.with_name("key.pub"))
    where.write_text(json.dumps({**envelope, "payloadType": "text/plain"}))
    with pytest.raises(CertificateError, match="holds 'text/plain'"):
        signing.require_signed(file, file.with_name("key.pub"))
    where.unlink()
    with pytest.raises(InputError, match="expected the signature of"):
        signing.require_signed(file, file.with_name("key.pub"))


def test_a_bundle_is_signed_by_its_manifest_which_its_files_must_fit(tmp_path: Path, capsys) -> None:
    bundle = toys.two_levels(tmp_path / "bundle")
    assert main(["sign", str(bundle), "--key", str(tmp_path / "key"), "--new"]) == 0
    check = ["inspect", str(bundle), "--key", str(tmp_path / "key.pub")]
    assert main(check) == 0
    assert "signed by key" in capsys.readouterr().err
    shutil.rmtree(bundle)
    toys.two_levels(bundle, estimator_cut=0.6)
    assert main(check) == 2
    assert "is not what was signed: a bundle with manifest" in capsys.readouterr().err
    (bundle / "estimator.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="SHA-256"):
        signing.require_signed(bundle, tmp_path / "key.pub")
    assert main(["inspect", "--key", str(tmp_path / "key.pub")]) == 2


def test_keys_that_are_none_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="File exists"):
        signing.make_key(file.with_name("key"))
    with pytest.raises(InputError, match="no private key"):
        signing.sign(file, file.with_name("key.pub"))
    with pytest.raises(InputError, match="no public key"):
        signing.require_signed(file, file.with_name("key"))
    with pytest.raises(InputError, match="expected a key in PEM"):
        signing.sign(file, tmp_path / "nothing")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        signing.sign(tmp_path / "empty", file.with_name("key"))


def test_verify_checks_the_signature_first(tmp_path: Path, capsys) -> None:
    from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES

    out, key = tmp_path / "r.jsonl", str(tmp_path / "key")
    data = ["--dataset", f"npz:{SHIPPED_IMAGES}", "--budget", "fixed:50", "--max", "2"]
    assert main(["evaluate", str(SHIPPED_BUNDLE), *data, "--out", str(out)]) == 0
    assert main(["sign", str(out), "--key", key, "--new"]) == 0
    assert main(["verify", str(out), "--key", f"{key}.pub"]) == 0
    capsys.readouterr()
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:2]))
    assert main(["verify", str(out)]) == 0
    assert main(["verify", str(out), "--key", f"{key}.pub"]) == 2
    assert "that had 3 lines; it has 2" in capsys.readouterr().err
