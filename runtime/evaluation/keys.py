"""Ed25519 keys in PEM files, by the package cryptography (extra `signing`)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import write_atomically


def make_key(path: Path) -> Path:
    """Write a new private key to `path` (readable by this user alone) and its public key beside it; returns where that
    is. Raises `InputError` where `path` exists."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except OSError as error:
        raise InputError(
            f"cannot make {path}: {error.strerror}; choose another --key, or sign without --new"
        ) from error
    out = path.with_name(path.name + ".pub")
    write_atomically(out, private.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return out


def key_id(public: Ed25519PublicKey) -> str:
    """SHA-256 of a public key's 32 bytes. It names the key in messages; nothing is trusted for it."""
    return hashlib.sha256(public.public_bytes(s.Encoding.Raw, s.PublicFormat.Raw)).hexdigest()


def holds(public: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether the key's owner signed the message."""
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def private_key(path: Path) -> Ed25519PrivateKey:
    """From PEM without a password. Raises `InputError`."""
    pem = _read(path)
    try:
        found = s.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is no private key in PEM without a password; make one with --new") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise InputError(f"{path} is a private key of another kind; expected Ed25519")
    return found


def public_key(path: Path) -> Ed25519PublicKey:
    """From PEM. Raises `InputError`."""
    pem = _read(path)
    try:
        found = s.load_pem_public_key(pem)
    except ValueError as error:
        raise InputError(f"{path} is no public key in PEM; pass the .pub file that the signer published") from error
    if not isinstance(found, Ed25519PublicKey):
        raise InputError(f"{path} is a public key of another kind; expected Ed25519")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected a key in PEM") from error
