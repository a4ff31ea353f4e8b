"""The analyst's line about one request: where it is, and a button that takes it back."""

from __future__ import annotations

from syft_lab.widgets.base import Panel, assets


class RequestStatus(Panel):
    """``look`` gives {"owner", "number", "state", "why", "returns", "comments", …}; the commands are cancel and comment."""

    _esm, _css = assets("status").values()
