"""Syft Lab: private data stay with their owner; analysts' notebooks ask, under differential privacy and a budget.

In a notebook: ``%load_ext syft_lab``. Elsewhere: ``import syft_lab as lab``. The names below are the public API; each
loads its module when first used, so that importing this package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Budget", "Federation", "Limits", "Outputs", "Owner", "Plan", "PointerFrame", "PointerTensor", "Receipt", "Request",
    "Result", "Session", "SharedTensor", "__version__", "connect", "each", "errors", "federation", "plan", "recompute", "send",
    "virtual_owners",
]  # fmt: skip

if TYPE_CHECKING:
    from syft_lab import errors
    from syft_lab.analyst.capture import Plan, plan
    from syft_lab.analyst.each import each
    from syft_lab.analyst.federation import Federation, federation
    from syft_lab.analyst.frame import PointerFrame
    from syft_lab.analyst.pointer import PointerTensor, recompute, send
    from syft_lab.analyst.result import Result
    from syft_lab.analyst.session import Session, connect
    from syft_lab.analyst.shared import SharedTensor
    from syft_lab.budget.accountant import Budget
    from syft_lab.kernel.executor.supervisor import Limits
    from syft_lab.kernel.outputs import Outputs
    from syft_lab.kernel.owner import Owner
    from syft_lab.kernel.requests.inbox import Request
    from syft_lab.local import virtual_owners
    from syft_lab.receipt import Receipt

_HOMES = {
    "Budget": "syft_lab.budget.accountant",
    "Federation": "syft_lab.analyst.federation",
    "Limits": "syft_lab.kernel.executor.supervisor",
    "Outputs": "syft_lab.kernel.outputs",
    "Owner": "syft_lab.kernel.owner",
    "Plan": "syft_lab.analyst.capture",
    "PointerFrame": "syft_lab.analyst.frame",
    "PointerTensor": "syft_lab.analyst.pointer",
    "Receipt": "syft_lab.receipt",
    "Request": "syft_lab.kernel.requests.inbox",
    "Result": "syft_lab.analyst.result",
    "Session": "syft_lab.analyst.session",
    "SharedTensor": "syft_lab.analyst.shared",
    "connect": "syft_lab.analyst.session",
    "each": "syft_lab.analyst.each",
    "federation": "syft_lab.analyst.federation",
    "plan": "syft_lab.analyst.capture",
    "recompute": "syft_lab.analyst.pointer",
    "send": "syft_lab.analyst.pointer",
    "virtual_owners": "syft_lab.local",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("syft_lab.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'syft_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext syft_lab``: the magics and their completions."""
    import_module("syft_lab.extension").load(shell)
