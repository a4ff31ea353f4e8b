"""What ``%load_ext syft_lab`` does: registers the magics of both sides, and completes their words."""

from __future__ import annotations

from typing import Any

from syft_lab.analyst.magics import AnalystMagics, connection_names
from syft_lab.kernel.magics import OwnerMagics

_OPTIONS = {
    "%owner": ["start", "stop", "status", "--listen", "--advertise"],
    "%connect": ["--as", "--timeout"],
    "%budget": [],
}


def load(shell: Any) -> None:
    """Register everything with an IPython shell."""
    shell.register_magics(OwnerMagics, AnalystMagics)
    for magic in _OPTIONS:
        shell.set_hook("complete_command", _complete, str_key=magic)


def _complete(shell: Any, event: Any) -> list[str]:
    """Words that may follow a magic; files are left to IPython's own completion."""
    words = list(_OPTIONS[event.command])
    if event.command in ("%connect", "%budget"):
        words += connection_names()
    return [w for w in words if w.startswith(event.symbol)]
