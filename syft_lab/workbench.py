"""The workbench around the notebooks: what JupyterLab's side panel shows of this kernel, as owner and as analyst."""

from __future__ import annotations

from typing import Any

from syft_lab.analyst.overview import Overview
from syft_lab.kernel.owner import Owner
from syft_lab.widgets.side import Side, View


class Workbench:
    """Joins the views of the owner and of the connections in one IPython shell, and keeps the pages up to date."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._side = Side(self._views)
        self._overview = Overview(lambda: shell.user_ns, self._forget, self._side.touch)
        self._followed: Owner | None = None

    def install(self) -> None:
        """Answer pages from now on, where this is a Jupyter kernel; elsewhere there is no page."""
        kernel = getattr(self._shell, "kernel", None)
        if kernel is None or getattr(kernel, "comm_manager", None) is None:
            return
        self._side.install(kernel.comm_manager)
        self._shell.events.register("post_run_cell", lambda _: self._side.touch())

    def _owner(self) -> Owner | None:
        owner = self._shell.magics_manager.registry["OwnerMagics"].owner
        if owner is not None and owner is not self._followed:
            owner.console.on_change.append(self._side.touch)
            self._followed = owner
        return owner  # type: ignore[no-any-return]

    def _views(self) -> dict[str, View]:
        owner = self._owner()
        overview = self._overview
        found = {"analyst": View(overview.look, dict.fromkeys(("free", "reconnect", "cancel"), overview.act))}
        return found | (owner.views() if owner is not None else {})

    def _forget(self, name: str) -> None:
        self._shell.del_var(name)


def install(shell: Any) -> None:
    """See `Workbench.install`."""
    Workbench(shell).install()
