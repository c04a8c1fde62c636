"""Protocol buffers, read strictly and without a schema compiler: enough to look into an untrusted ONNX file.

A lenient reader and the engine's own might understand one file differently, and a check of the one says nothing about
the other. So everything is refused on which readers may disagree: fields that the schema below does not have, a second
value for a field that holds one, wrong wire types, numbers out of range, text that is not UTF-8, groups, cut ends.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_FIELDS = 4_000_000
"""More than any network has; keeps a hostile file from filling the memory with empty messages."""
MAX_DEPTH = 48


class WireError(ValueError):
    """The bytes are not one message of the schema."""


INT, INT32, TEXT, BYTES, FLOAT32, FLOAT64 = "int64", "int32", "text", "bytes", "float", "double"
_WIRE = {INT: 0, INT32: 0, FLOAT32: 5, FLOAT64: 1}
"""Wire types of numbers; everything else is length-delimited."""


@dataclass(frozen=True)
class Field:
    """`kind`: a scalar kind, or the name of a message. Bulk fields (packed numbers) are kept as bytes, undecoded."""

    name: str
    kind: str
    repeated: bool = False


Schema = Mapping[str, Mapping[int, Field]]
Message = dict[str, Any]
"""Field name to value; repeated fields are lists; fields that are absent have no key."""


def decode(data: memoryview, schema: Schema, message: str) -> Message:
    """Read `data` as one `message` of `schema`. Raises `WireError`."""
    return _Decoder(schema).message(data, message, 0)


class _Decoder:
    def __init__(self, schema: Schema) -> None:
        self.schema, self.left = schema, MAX_FIELDS

    def message(self, data: memoryview, name: str, depth: int) -> Message:
        if depth > MAX_DEPTH:
            raise WireError(f"messages are nested more than {MAX_DEPTH} deep")
        fields, out, at = self.schema[name], Message(), 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise WireError(f"it has more than {MAX_FIELDS} fields")
            tag, at = varint(data, at)
            number, wire = tag >> 3, tag & 7
            field = fields.get(number)
            if field is None or tag >> 32:
                raise WireError(f"{name} has a field {number} that is not known here")
            value, at = self._value(data, at, wire, field, f"{name}.{field.name}", depth)
            if not field.repeated:
                if field.name in out:
                    raise WireError(f"{name}.{field.name} occurs twice")
                out[field.name] = value
            elif isinstance(value, list):
                out.setdefault(field.name, []).extend(value)
            else:
                out.setdefault(field.name, []).append(value)
        return out

    def _value(
        self, data: memoryview, at: int, wire: int, field: Field, where: str, depth: int
    ) -> tuple[Any, int]:  # fmt: skip
        scalar = _WIRE.get(field.kind)
        if wire == 2 and (scalar is None or field.repeated):
            length, at = varint(data, at)
            if length > len(data) - at:
                raise WireError(f"{where} is cut off")
            part = data[at : at + length]
            return self._part(part, field, where, depth), at + length
        if wire != scalar:
            raise WireError(f"{where} has the wrong wire type")
        if wire == 0:
            number, at = varint(data, at)
            return _signed(number, field.kind, where), at
        size = 4 if wire == 5 else 8
        if size > len(data) - at:
            raise WireError(f"{where} is cut off")
        return data[at : at + size], at + size

    def _part(self, part: memoryview, field: Field, where: str, depth: int) -> Any:
        """The value of a length-delimited field; packed integers become a list, other packed numbers stay bytes."""
        if field.kind in (INT, INT32):
            numbers, at = [], 0
            while at < len(part):
                self.left -= 1
                if self.left < 0:
                    raise WireError(f"it has more than {MAX_FIELDS} fields")
                number, at = varint(part, at)
                numbers.append(_signed(number, field.kind, where))
            return numbers
        if field.kind in (BYTES, FLOAT32, FLOAT64):
            return part
        if field.kind == TEXT:
            try:
                return str(part, "utf-8")
            except UnicodeDecodeError as error:
                raise WireError(f"{where} is not UTF-8 text") from error
        return self.message(part, field.kind, depth + 1)


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The variable-length number at `at`, and where it ends. Raises `WireError`."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise WireError("it is cut off inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise WireError("a number has more than 64 bits")
    if value >> 64:
        raise WireError("a number has more than 64 bits")
    return value, at


def _signed(number: int, kind: str, where: str) -> int:
    value = number - (1 << 64) if number >> 63 else number
    if kind == INT32 and not -(1 << 31) <= value < 1 << 31:
        raise WireError(f"{where} does not fit into 32 bits")
    return value
