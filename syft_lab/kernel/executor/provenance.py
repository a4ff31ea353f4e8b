"""How values came to be: a graph of operations with digests, cut off where it grows long."""

from __future__ import annotations

import hashlib
import itertools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

_count = itertools.count()


class Made:
    """One value's making. ``text`` is its operation with ``%`` for each value of ``past`` that it reads, in order."""

    __slots__ = ("__weakref__", "_content", "_digest", "_past", "_run", "_text", "at", "key", "many", "out")

    def __init__(self, text: str, past: tuple[Made, ...] | None = None, out: int = 0, many: int = 1, key: Any = None) -> None:
        self._text, self._past, self.out, self.many, self.key = text, past, out, many, key
        self.at: float = next(_count)
        self._digest = b""
        self._content: Any = None
        self._run: Ran | None = None

    @classmethod
    def given(cls, text: str, content: Any) -> Made:
        """A value that came in as bytes, which never change. They are hashed when that is needed: most never are."""
        made = cls(text)
        made._content = content
        return made

    @property
    def text(self) -> str:
        """See the class."""
        self._open()
        if self._content is not None:
            self._text += f" {hashlib.sha256(self._content).hexdigest()[:32]}"
            self._content = None
        return self._text

    @property
    def past(self) -> tuple[Made, ...] | None:
        """What it was made of; None where that is not kept, or where it came from outside."""
        self._open()
        return self._past

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
        self.forget(self.digest)

    def forget(self, digest: bytes) -> None:
        """Be known by a digest alone."""
        self._digest = digest
        self._text, self._past, self._content, self._run = f"earlier steps, {digest.hex()[:16]}", None, None, None

    def fill(self, text: str, past: tuple[Made, ...], out: int, many: int, at: float) -> None:
        """Be this operation's result."""
        self._text, self._past, self.out, self.many, self.at = text, past, out, many, at

    def _open(self) -> None:
        if self._run is not None and not self._text:
            self._run.write_out()


class Ran:
    """One run of a plan, whose operations are written out as `Made` when somebody asks: most never are.

    ``texts`` gives them, as `compiled.Compiled.texts`; ``past`` are the inputs; ``name`` tells plans and seeds apart.
    """

    __slots__ = ("__weakref__", "_made", "_texts", "at", "name", "outs", "past")

    def __init__(self, name: str, texts: Callable[[], Iterable[Any]], past: tuple[Made, ...]) -> None:
        self.name, self._texts, self.past = name, texts, past
        self.at = next(_count)
        self.outs: dict[int, weakref.ref[Made]] = {}
        self._made: dict[int, Made] = {}

    def out(self, number: int, place: float) -> Made:
        """What it made under this number of the plan's; ``place``, from 0 to 1, is where in the plan."""
        made = Made("")
        made.at = self.at + place
        made._run = self
        self.outs[number] = weakref.ref(made)
        return made

    def write_out(self) -> None:
        """Write out the makings of all of the plan's values. Outputs that somebody holds are filled in."""
        if not self._made:
            self._made.update(enumerate(self.past))
            texts = list(self._texts())
            for i, (text, reads, outs) in enumerate(texts):
                past = tuple(self._made[n] for n in reads)
                for j, out in enumerate(outs):
                    if out is not None:
                        held = self.outs.get(out)
                        made = (held and held()) or Made("")
                        made.fill(text, past, j, len(outs), self.at + within(i, j, len(outs), len(texts)))
                        self._made[out] = made

    def cut(self) -> None:
        """Forget the past of its outputs. Those whose digest nobody asked for are named by the plan and its inputs."""
        for number, ref in self.outs.items():
            made = ref()
            if made is not None:
                told = b"".join([self.name.encode(), *(p.digest for p in self.past), number.to_bytes(4, "big")])
                made.forget(made._digest or hashlib.blake2b(told, digest_size=16).digest())
        self._made.clear()


def within(node: int, out: int, many: int, nodes: int) -> float:
    """Where in a plan a value is made, from 0 to 1: later ones come later."""
    return (node + 1 + out / (many + 1)) / (nodes + 2)


def settle(made: weakref.ref[Made]) -> None:
    """Called when a value is gone: bytes that it came as are hashed where others were made from them, and then forgotten."""
    left = made()
    if left is not None:
        left.text  # noqa: B018 - it hashes


def story(made: Made, most: int, code: bool = False) -> str:
    """The operations that a value came from, oldest first, at most so many; as Python where it is ``code``."""
    found: dict[float, Made] = {}
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
