"""The owner's inbox: cards of requests, with approve, deny, look, release and withhold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pygments import lexers, token
from pygments.util import ClassNotFound

from syft_lab.widgets.base import Command, Panel, assets

_KINDS = (
    (token.Comment, "comment"), (token.Keyword, "keyword"), (token.Operator.Word, "keyword"), (token.String, "string"),
    (token.Number, "number"), (token.Name.Function, "name"), (token.Name.Class, "name"), (token.Name.Builtin, "name"),
)  # fmt: skip
MAX_COLOURED = 20_000


class Inbox(Panel):
    """``look`` gives {"owner", "requests", "over"}; ``commands`` are approve, deny, preview, release, withhold, cancel."""

    _esm, _css = assets("inbox").values()

    def __init__(self, look: Callable[[], dict[str, Any]], commands: Mapping[str, Command], text: Callable[[], str]) -> None:
        super().__init__(look, commands, text)


@lru_cache(256)  # a card is drawn anew at each change of any request
def tokens(code: str) -> list[tuple[str, str]]:
    """Python code as (kind, text) pairs that a page colours; the texts together are the code."""
    if len(code) > MAX_COLOURED:
        return [("", code)]
    try:
        lexer = lexers.get_lexer_by_name("python", stripnl=False, ensurenl=False)
    except ClassNotFound:
        return [("", code)]
    found: list[tuple[str, str]] = []
    for kind, text in lexer.get_tokens(code):
        name = next((n for t, n in _KINDS if kind in t), "")
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1] + text)
        else:
            found.append((name, text))
    return found
