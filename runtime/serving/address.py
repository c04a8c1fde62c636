"""Addresses of servers, and the wire that each opens."""

from __future__ import annotations

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.serving.grpc_wire import GrpcWire
from dualsmooth.runtime.serving.http_wire import HttpWire
from dualsmooth.runtime.serving.wire import Wire

WIRES: dict[str, type[Wire]] = {"grpc": GrpcWire, "http": HttpWire}
"""By the scheme of the address."""


def is_url(text: object) -> bool:
    """Whether `text` names a server rather than a folder."""
    return isinstance(text, str) and text.startswith(tuple(f"{scheme}://" for scheme in WIRES))


def open_wire(url: str, model: str, *, timeout: float, retries: int, shared_memory: bool) -> Wire:
    """`grpc://host:port` or `http://host:port`. Raises `InputError`."""
    scheme, _, address = url.partition("://")
    if scheme not in WIRES or not address.rpartition(":")[2].isdecimal() or not address.rpartition(":")[0]:
        raise InputError(f"server {url!r}; expected grpc://host:8001 or http://host:8000")
    if not timeout > 0 or retries < 0:
        raise InputError(f"timeout {timeout}, retries {retries}; expected a positive timeout and at least 0 retries")
    try:
        return WIRES[scheme](url, address, model, timeout, retries, shared_memory)
    except ImportError as error:
        raise InputError(f"{url} needs tritonclient; install it with pip install 'dualsmooth[triton]'") from error
