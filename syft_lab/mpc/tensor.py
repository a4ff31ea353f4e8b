"""Modules and functions on shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from syft_lab.mpc import rules  # noqa: F401 - enters them in the table
from syft_lab.mpc.share import Share


def run(work: Callable[..., Any], *inputs: Share, parameters: Mapping[str, Share] | None = None) -> Any:
    """Run a module, or a function, on shares; ``parameters`` replace those of the module."""
    with torch.no_grad():
        if parameters is None:
            return work(*inputs)
        return torch.func.functional_call(work, dict(parameters), inputs)
