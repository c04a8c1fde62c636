"""Pages that are one text: style, code and data stand inside, and a policy lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any


def embedded(page: str, *, style: str, script: str, data: Any, connect: str = "'none'") -> str:
    """The HTML of `page` with its places filled: @POLICY@, @STYLE@, @DATA@ and @SCRIPT@.

    `data` is embedded as JSON that cannot end its element; a content security policy lets only this style and script
    run, and nothing be fetched but from `connect`, a source of that policy.
    """
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    for name, text in (("POLICY", policy), ("STYLE", style), ("DATA", _inert_json(data)), ("SCRIPT", script)):
        head, tail = page.split(f"@{name}@")
        page = head + text + tail
    return page


def part(package: str, name: str) -> str:
    """The text of a file in the folder `page` of a package."""
    return (files(package) / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert_json(data: Any) -> str:
    """JSON without a character that HTML could take for markup, nor the page's own placeholders."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&@\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
