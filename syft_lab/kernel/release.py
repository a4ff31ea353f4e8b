"""The only exit: what leaves an owner is checked here, against what was asked, and turned into bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from syft_lab import __version__
from syft_lab.budget.queries import Answer, Prepared
from syft_lab.errors import FailedError

if TYPE_CHECKING:
    from syft_lab.budget.noise import Noise
    from syft_lab.kernel.catalogue import Dataset

ISOLATION = "in-kernel queries; no analyst's code runs"


def seal(prepared: Prepared, answer: Answer) -> dict[str, Any]:
    """The value as JSON, if it has exactly the declared groups and finite numbers; raises FailedError otherwise."""
    query, schema = prepared.query, prepared.schema
    groups = math.prod(len(schema.column(n).categories or ()) for n in query.by)
    told = (answer.values, answer.accuracy, answer.low, answer.high)
    if len(answer.keys) != groups or any(len(t) != groups or not all(map(_is_number, t)) for t in told):
        raise FailedError("the noisy answer has another form than was asked for; nothing was released. Tell the owner")
    return {
        "aggregate": query.aggregate,
        "by": list(query.by),
        "keys": [list(k) for k in answer.keys],
        "values": list(answer.values),
        "accuracy": list(answer.accuracy),
        "low": list(answer.low),
        "high": list(answer.high),
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
        "mechanism": f"{prepared.noise.mechanism}; sums of what each row alone adds",
        "scales": {name: format(scale, ".12g") for name, scale in prepared.scales.items()},
        "isolation": ISOLATION,
        "software": f"syft-lab {__version__}",
    }


def seal_tensor(found: Mapping[str, Any], made: Noise) -> dict[str, Any]:
    """The noisy integers of an aggregate in its own units; raises FailedError where they are no finite numbers."""
    values = [found["offset"] + found["step"] * v for v in made.draw(found["ints"])]
    if len(values) != math.prod(found["shape"]) or not all(map(math.isfinite, values)):
        raise FailedError("the noisy value has another form than was asked for; nothing was released. Tell the owner")
    return {"aggregate": "tensor", "shape": list(found["shape"]), "values": values, "accuracy": abs(found["step"]) * made.error}


def guarantee_of_plan(made: Noise, dataset: Dataset, isolation: str, tried: str) -> dict[str, Any]:
    """What the receipt says about the mechanism and the promise of a tensor; ``tried`` is what its label rests on."""
    k = 1 if dataset.tensor is not None else dataset.schema.max_contributions
    one = "one row" if dataset.unit == "row" else f"one {dataset.unit} with all its rows (at most {k})"
    return {"guarantee": made.promise, "measure": "approximate (ε, δ)" if "(" in made.promise else "max-divergence (pure ε)",
            "neighbours": f"replace {one}", "mechanism": f"{made.mechanism}; sums on an integer grid",
            "scales": {"value": format(made.scale, ".12g")}, "label": f"by rule, and {tried}",
            "isolation": f"plans of listed operations; {isolation}", "software": f"syft-lab {__version__}"}  # fmt: skip


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))
