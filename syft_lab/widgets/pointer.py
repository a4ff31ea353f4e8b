"""A pointer to a table, to look at: schema, terms, and pages of the mock on a click."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syft_lab.widgets.base import Panel, assets

PAGE = 10


class PointerView(Panel):
    """``look`` gives {"title", "facts", "columns"}; ``mock`` the made-up rows as a pandas frame."""

    _esm, _css = assets("pointer").values()

    def __init__(self, look: Callable[[], dict[str, Any]], mock: Callable[[], Any], text: Callable[[], str]) -> None:
        def page(command: dict[str, Any]) -> dict[str, Any]:
            rows = mock()
            start = command.get("start")
            at = start if type(start) is int and 0 <= start < len(rows) else 0
            some = rows.iloc[at : at + PAGE]
            cells = [[None if v != v or v is None else str(v) for v in row] for row in some.astype(object).to_numpy()]
            return {"start": at, "total": len(rows), "columns": [str(c) for c in some.columns], "rows": cells}

        super().__init__(lambda: {**look(), "page": PAGE}, {"mock": page}, text)
