"""Canonical JSON: one byte string for one value, so that it can be hashed and signed; and a bounded parser.

Keys sorted, no spaces, ASCII, no NaN or infinity: RFC 8785 for the values used here, with Python's shortest
round-trip floats in place of ECMAScript's (both sides are Python; docs/protocol.md says so).
"""

from __future__ import annotations

import json
from typing import Any

from syft_lab.errors import WireError


def dumps(value: Any) -> bytes:
    """Canonical bytes of a JSON value; raises ValueError for NaN, infinity and what JSON can't hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def loads(data: bytes | str, *, limit: int = 1 << 20) -> Any:
    """Parse JSON from a stranger: at most ``limit`` bytes, no NaN, no duplicate keys; raises WireError."""
    if len(data) > limit:
        raise WireError(f"JSON of {len(data)} bytes is larger than the limit of {limit}; send less")
    try:
        return json.loads(data, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise WireError("malformed JSON: it must be UTF-8, nested moderately, without NaN or repeated keys") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("repeated key")
    return found
