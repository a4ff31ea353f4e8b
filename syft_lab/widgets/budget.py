"""Budget gauges: one dial a budget, drawn by Plotly in the page; spent, reserved, left, and exact releases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from syft_lab.widgets.base import Panel, assets
from syft_lab.widgets.cards import Gauge


class BudgetGauge(Panel):
    """``gauges`` gives the budgets now, with a number of exact releases each."""

    _esm, _css = assets("budget").values()

    def __init__(self, owner: str, gauges: Callable[[], list[tuple[Gauge, int]]], empty: str, text: Callable[[], str]) -> None:
        def look() -> dict[str, Any]:
            shown = [
                {"label": g.label, "cap": g.cap, "spent": g.spent, "reserved": g.reserved, "left": g.left, "exact": exact,
                 "note": g.note} for g, exact in gauges()
            ]  # fmt: skip
            return {"owner": owner, "gauges": shown, "empty": empty}

        super().__init__(look, {"refresh": self._again, "plotly": plotly}, text)

    def _again(self, command: dict[str, Any]) -> str:
        self.refresh()
        return datetime.now().strftime("%H:%M:%S")


def plotly(command: dict[str, Any]) -> str:
    """Plotly's own script, from its Python package: the page needs no network."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script
