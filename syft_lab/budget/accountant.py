"""Costs and budgets as integers: pure functions, no state.

(ε, δ)-differential privacy with basic composition, used as a privacy filter: a question runs only while the sum of
all costs stays within the budget, whatever was asked before and however the next question depends on the answers
(Rogers, Roth, Ullman, Vadhan 2016, "Privacy odometers and filters", section 3: basic composition holds for adaptively
chosen parameters). ε is counted in millionths and δ in millionths of a millionth, rounded up in costs and down in
budgets, so that no sum drifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from numbers import Real
from typing import Any

from syft_lab.errors import UsageError
from syft_lab.printable import printed

MICRO, PICO = 10**6, 10**12
MAX_QUERY_EPSILON, MAX_BUDGET_EPSILON = 100, 1000


@dataclass(frozen=True, order=False)
class Cost:
    """A cost or a cap. ``epsilon`` in units of 1e-6, ``delta`` in units of 1e-12."""

    epsilon: int
    delta: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Basic composition: costs add."""
        return Cost(self.epsilon + other.epsilon, self.delta + other.delta)

    def __sub__(self, other: Cost) -> Cost:
        """What is left of a cap."""
        return Cost(self.epsilon - other.epsilon, self.delta - other.delta)

    def fits(self, cap: Cost) -> bool:
        """Whether both parts lie within ``cap``."""
        return self.epsilon <= cap.epsilon and self.delta <= cap.delta

    def at_most(self, cap: Cost) -> Cost:
        """The smaller one, part by part."""
        return Cost(min(self.epsilon, cap.epsilon), min(self.delta, cap.delta))

    def to_json(self) -> dict[str, int]:
        """The integers, for signing and for the wire."""
        return {"epsilon_micro": self.epsilon, "delta_pico": self.delta}

    @printed
    def __str__(self) -> str:
        text = f"ε = {plain(self.epsilon)}"
        return f"{text}, δ = {self.delta / PICO:g}" if self.delta else text


@dataclass(frozen=True)
class Budget:
    """How much may be learned about a population in all: 0 < ε ≤ 1000 and 0 ≤ δ < 1.

    Raises UsageError for anything else.
    """

    epsilon: float
    delta: float = 0.0

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon, MAX_BUDGET_EPSILON)
        _check_delta(self.delta)

    @property
    def cap(self) -> Cost:
        """The budget in integer units, rounded down."""
        return Cost(_units(self.epsilon, MICRO, ROUND_FLOOR), _units(self.delta, PICO, ROUND_FLOOR))


def cost(epsilon: float, delta: float = 0.0) -> Cost:
    """The cost of one question, rounded up; raises UsageError unless 0 < ε ≤ 100 and 0 ≤ δ < 1."""
    _check_epsilon(epsilon, MAX_QUERY_EPSILON)
    _check_delta(delta)
    return Cost(_units(epsilon, MICRO, ROUND_CEILING), _units(delta, PICO, ROUND_CEILING))


def plain(units: int, scale: int = MICRO) -> str:
    """An amount in integer units as a short decimal number."""
    return format((Decimal(units) / scale).normalize(), "f")


def _check_epsilon(epsilon: Any, most: int) -> None:
    number = _number(epsilon)
    if not 0 < number < math.inf:
        raise UsageError(f"epsilon must be a positive number, such as 0.1; it is {ascii(epsilon)[:40]}")
    if number > most:
        raise UsageError(f"epsilon = {number:g} promises nothing: use at most {most}, and rather below 1")


def _check_delta(delta: Any) -> None:
    if not 0 <= _number(delta) < 1:
        raise UsageError(f"delta must be a number from 0 to below 1, such as 1e-6; it is {ascii(delta)[:40]}")


def _number(value: Any) -> float:
    """``value`` as a float; NaN for what is no number (a bool is none)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    return float(value)


def _units(amount: float, scale: int, rounding: str) -> int:
    # repr gives the shortest decimal that means this float: 0.1 is a tenth, not 0.1000000000000000055.
    return int((Decimal(repr(float(amount))) * scale).to_integral_value(rounding))
