"""How values came to be: a graph of operations with digests, cut off where it grows long."""

from __future__ import annotations

import hashlib
import itertools
import weakref
from typing import Any

_count = itertools.count()


class Made:
    """One value's making. ``text`` is its operation with ``%`` for each value of ``past`` that it reads, in order."""

    __slots__ = ("__weakref__", "_digest", "_given", "_text", "at", "key", "many", "out", "past")

    def __init__(self, text: str, past: tuple[Made, ...] | None = None, out: int = 0, many: int = 1, key: Any = None) -> None:
        self._text, self.past, self.out, self.many, self.key = text, past, out, many, key
        self.at = next(_count)
        self._digest = b""
        self._given: Any = None

    @classmethod
    def given(cls, text: str, content: Any) -> Made:
        """A value that came in as bytes, which never change. They are hashed when that is needed: most never are."""
        made = cls(text)
        made._given = content
        return made

    @property
    def text(self) -> str:
        """See the class."""
        if self._given is not None:
            self._text += f" {hashlib.sha256(self._given).hexdigest()[:32]}"
            self._given = None
        return self._text

    @property
    def digest(self) -> bytes:
        """16 bytes that name this value: equal for equal operations on equal values."""
        todo = [self]
        while todo:
            made = todo[-1]
            if made._digest:
                todo.pop()
                continue
            waiting = [p for p in made.past or () if not p._digest]
            if waiting:
                todo += waiting
                continue
            found = hashlib.blake2b(f"{made.text} #{made.out}".encode(), digest_size=16)
            for p in made.past or ():
                found.update(p._digest)
            made._digest = found.digest()
            todo.pop()
        return self._digest

    def cut(self) -> None:
        """Forget what it came from, but for the digest."""
        self._text, self.past, self._given = f"earlier steps, {self.digest.hex()[:16]}", None, None


def settle(made: weakref.ref[Made]) -> None:
    """Called when a value is gone: bytes that it came as are hashed where others were made from them, and then forgotten."""
    left = made()
    if left is not None:
        left.text  # noqa: B018 - it hashes


def story(made: Made, most: int, code: bool = False) -> str:
    """The operations that a value came from, oldest first, at most so many; as Python where it is ``code``."""
    found: dict[int, Made] = {}
    todo = [made]
    while todo and len(found) < most:
        each = todo.pop()
        if each.at not in found:
            found[each.at] = each
            todo += each.past or ()
    order = [found[at] for at in sorted(found)]
    names = {m.at: f"v{i}" if code else f"%{i}" for i, m in enumerate(order)}
    lines = []
    for m in order:
        if m.past is None:
            lines.append(f"{names[m.at]} = given({m.text!r})" if code else f"{names[m.at]} = {m.text}")
            continue
        told = iter([names.get(p.at, "earlier") for p in m.past])
        text = "".join(next(told, "earlier") if c == "%" else c for c in m.text)
        lines.append(f"{names[m.at]} = {text}{f'[{m.out}]' if m.many > 1 else ''}")
    return "\n".join([*lines, f"value = {names[made.at]}"] if code else lines)
