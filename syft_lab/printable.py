"""Text of others before a person reads it: nothing in it moves a cursor, turns the order of letters round, or hides.

Names, reasons, comments, errors and values come from the other side. Every `__repr__` and `__str__` of ours that may hold
such text is `printed`, errors show themselves so, and cards and terminals spell out each part.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable
from typing import Any, TypeVar

# Control, format (bidirectional marks, joiners), surrogate, private and unassigned characters, and separators of lines.
DECEIVING = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# What is drawn as nothing though its category does not say so: the joiner of graphemes, fillers of Hangul, vowels of Khmer, the
# blank of braille, and selectors of variants.
INVISIBLE = frozenset(map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810),
                                *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))  # fmt: skip
Text = TypeVar("Text", bound=Callable[..., str])


def printable(text: object, lines: bool = False) -> str:
    """``text`` with deceiving and invisible characters spelled out as escapes.

    ``lines`` keeps newlines, for text that has several; a name or a reason has none.
    """
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    return "".join(c.encode("unicode_escape").decode() if _deceives(c) and not (lines and c == "\n") else c for c in plain)


def _deceives(c: str) -> bool:
    return c in INVISIBLE or unicodedata.category(c) in DECEIVING


def printed(method: Text) -> Text:
    """For a `__repr__` or `__str__`: its text is made `printable`, in lines."""

    @functools.wraps(method)
    def text(self: Any, *args: Any, **kwargs: Any) -> str:
        return printable(method(self, *args, **kwargs), lines=True)

    text.syft_printed = True  # type: ignore[attr-defined]
    return text  # type: ignore[return-value]
