"""The owner's console: facts, gauges and the latest events, live; a button verifies the journal."""

from __future__ import annotations

from syft_lab.widgets.base import Panel, assets


class OwnerConsole(Panel):
    """``look`` gives {"title", "running", "warning", "facts", "gauges", "events"}; the command is verify."""

    _esm, _css = assets("console").values()
