"""The only exit: what leaves an owner is checked here, against what was asked, and turned into bytes."""

from __future__ import annotations

import math
from typing import Any

from syft_lab import __version__
from syft_lab.budget.queries import Answer, Prepared
from syft_lab.errors import FailedError

ISOLATION = "in-kernel queries; no analyst's code runs"


def seal(prepared: Prepared, answer: Answer) -> dict[str, Any]:
    """The value as JSON, if it has exactly the declared groups and finite numbers; raises FailedError otherwise."""
    query, schema = prepared.query, prepared.schema
    groups = math.prod(len(schema.column(n).categories or ()) for n in query.by)
    numbers = [*answer.values, *answer.accuracy]
    if not len(answer.keys) == len(answer.values) == len(answer.accuracy) == groups or not all(map(_is_number, numbers)):
        raise FailedError("the noisy answer has another form than was asked for; nothing was released. Tell the owner")
    return {
        "aggregate": query.aggregate,
        "by": list(query.by),
        "keys": [list(k) for k in answer.keys],
        "values": list(answer.values),
        "accuracy": list(answer.accuracy),
    }


def guarantee(prepared: Prepared, unit: str) -> dict[str, Any]:
    """What the receipt says about the mechanism and the promise."""
    k = prepared.schema.max_contributions
    one = "one row" if unit == "row" else f"one {unit} with all its rows (at most {k})"
    epsilon = format(prepared.cost.epsilon / 1e6, "g")
    return {
        "guarantee": f"{epsilon}-differential privacy",
        "measure": "max-divergence (pure ε)",
        "neighbours": f"add or remove {one}",
        "mechanism": "OpenDP make_private_lazyframe, discrete Laplace noise",
        "scales": {name: format(scale, ".12g") for name, scale in prepared.scales.items()},
        "isolation": ISOLATION,
        "software": f"syft-lab {__version__}",
    }


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))
