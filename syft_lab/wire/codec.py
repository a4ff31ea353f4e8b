"""Messages to frames and back. Pure: no socket, no clock. Trusts nothing in a frame; raises WireError.

`encode` gives ``[header, *payload]``; `decode` takes the same. `read_header` judges a header alone, so that a receiver
knows what it may allocate before a payload comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgpack

from syft_lab.errors import WireError
from syft_lab.wire.messages import KINDS, VERSIONS, Message

Frame = bytes | bytearray | memoryview
MAX_HEADER, MAX_FRAMES, MAX_ITEMS = 256 << 10, 32, 1024
MAX_TEXT = 64 << 10


@dataclass(frozen=True)
class Header:
    """A judged header: everything of a message but its payload."""

    version: int
    kind: type[Message]
    id: int
    fields: Mapping[str, Any]

    def message(self, payload: Sequence[Frame] = ()) -> Message:
        """The message with this header and ``payload``; raises WireError if there is more than its kind may carry."""
        if len(payload) > MAX_FRAMES or sum(memoryview(p).nbytes for p in payload) > self.kind.max_payload:
            raise WireError(f"a message of kind {self.kind.kind} can't carry this payload")
        extra = {"payload": list(payload)} if "payload" in _fields(self.kind) else {}
        return self.kind(**self.fields, **extra)


def encode(message: Message, id: int, version: int = VERSIONS[-1]) -> list[Frame]:
    """Frames of a message: the header, then the payload as it is, uncopied. Raises WireError if it is too large."""
    types = _fields(type(message))
    content = {name: getattr(message, name) for name in types if name != "payload"}
    header = msgpack.packb([version, message.kind, id, content], use_bin_type=True)
    payload = list(getattr(message, "payload", ()))
    if len(header) > MAX_HEADER or len(payload) > MAX_FRAMES:
        raise WireError(f"a message of kind {message.kind} is too large: header {len(header)} bytes of at most {MAX_HEADER}")
    return [header, *payload]


def decode(frames: Sequence[Frame]) -> tuple[Message, int]:
    """The message in ``[header, *payload]`` and its id; raises WireError."""
    if not 1 <= len(frames) <= MAX_FRAMES + 1:
        raise WireError(f"a message has a header and at most {MAX_FRAMES} payload frames")
    header = read_header(frames[0])
    return header.message(frames[1:]), header.id


def read_header(frame: Frame) -> Header:
    """Judge a header; raises WireError."""
    version, name, id, content = _unpack(frame)
    if type(version) is not int or type(id) is not int or not 0 <= id < 1 << 63:
        raise WireError("a header is [version, kind, id, fields]")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise WireError(f"there is no message of kind {ascii(name)[:40]}")
    types = {n: t for n, t in _fields(kind).items() if n != "payload"}
    if not isinstance(content, dict) or set(content) != set(types):
        raise WireError(f"a message of kind {name} has the fields: {', '.join(types) or 'none'}")
    for field, expected in types.items():
        if not _CHECKS[expected](content[field]):
            raise WireError(f"the field {field} of {name} must be {expected}")
    return Header(version, kind, id, content)


def id_of(frame: Frame) -> int:
    """The id in a header that `read_header` refused, so that the asker can be told; 0 if there is none."""
    try:
        found = _unpack(frame)[2]
    except WireError:
        return 0
    return found if type(found) is int and 0 <= found < 1 << 63 else 0


def _unpack(frame: Frame) -> list[Any]:
    if len(frame) > MAX_HEADER:
        raise WireError(f"a header has at most {MAX_HEADER} bytes")
    try:
        found = msgpack.unpackb(frame, raw=False, strict_map_key=True, max_str_len=MAX_TEXT, max_bin_len=MAX_HEADER,
                                max_array_len=MAX_ITEMS, max_map_len=64, max_ext_len=0)  # fmt: skip
    except Exception:  # msgpack raises its own errors, ValueError, TypeError, and more on hostile bytes
        raise WireError("a header that is not msgpack, or passes its limits") from None
    if not isinstance(found, list) or len(found) != 4:
        raise WireError("a header is [version, kind, id, fields]")
    return found


def _fields(kind: type[Message]) -> dict[str, str]:
    return _FIELDS[kind]


_FIELDS = {kind: {f.name: str(f.type) for f in fields(kind)} for kind in KINDS.values()}
_CHECKS = {
    "str": lambda v: isinstance(v, str),
    "int": lambda v: type(v) is int,
    "bytes": lambda v: isinstance(v, bytes),
    "list[int]": lambda v: isinstance(v, list) and all(type(i) is int for i in v),
    "list[bytes]": lambda v: isinstance(v, list) and all(isinstance(i, bytes) for i in v),
}
