"""Noise on vectors of integers, by OpenDP: discrete Laplace for pure ε, discrete Gaussian where a δ is given.

Discrete Laplace of scale L1/ε is ε-DP (Ghosh, Roughgarden, Sundararajan 2009). Discrete Gaussian of scale σ is ρ-zCDP with
ρ = L2²/2σ², and (ε, δ)-DP by the conversion of Canonne, Kamath and Steinke (2020); OpenDP's own map is what is held
against the cost, not these formulas.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

os.environ.setdefault("RUST_BACKTRACE", "0")  # OpenDP resolves a backtrace for every internal miss: twice the time

# Not opendp.prelude: it imports scikit-learn where that is installed, 1.4 s at the start of each kernel.
from opendp.combinators import make_fix_delta, make_zCDP_to_approxDP
from opendp.domains import atom_domain, vector_domain
from opendp.measurements import make_gaussian, make_laplace
from opendp.metrics import l1_distance, l2_distance
from opendp.mod import OpenDPException, enable_features

from syft_lab.budget.accountant import MICRO, PICO, Cost
from syft_lab.errors import FailedError

enable_features("contrib")

MAX_NUMBERS = 100_000
SHARPEN = 12
PART, MOST_PARTS = 250, 4  # a thread for fewer numbers is not worth it


@dataclass(frozen=True)
class Noise:
    """A measurement of integers at a cost. ``scale`` is in their units; ``error`` is what 95 of 100 stay within, each.

    ``make`` makes the measurement of OpenDP whose map was held against the cost, and ``spends`` asks that map again: the ε of
    a vector that one person moves by so much.
    """

    make: Callable[[], Any]
    spends: Callable[[float], float]
    scale: float
    error: float
    mechanism: str
    promise: str

    def draw(self, numbers: Sequence[int]) -> list[int]:
        """The numbers under noise, in parts that are drawn beside each other where there are many.

        Each entry has noise of its own, of one scale: the parts together are distributed as the measurement of the whole is.
        """
        whole = np.array(numbers, dtype=np.int64)
        parts = np.array_split(whole, max(1, min(-(-len(whole) // PART), os.cpu_count() or 1, MOST_PARTS)))
        with ThreadPoolExecutor(len(parts)) as pool:  # OpenDP lets other threads run while it draws
            return [n for part in pool.map(lambda part: self.make()(part), parts) for n in part]


def prepare(l1: int, l2: float, cost: Cost) -> Noise:
    """Noise for a vector that one person moves by at most ``l1`` and ``l2``; raises FailedError where there is none."""
    epsilon, delta = cost.epsilon / MICRO, cost.delta / PICO
    if l1 == 0:
        l1, l2 = 1, 1.0  # a constant: noise costs it nothing, and tells nothing
    made = _gaussian(l2, epsilon, delta) if cost.delta else _laplace(l1, epsilon)
    return made


def _laplace(l1: int, epsilon: float) -> Noise:
    scale = l1 / epsilon
    space = vector_domain(atom_domain(T="i64")), l1_distance(T="i64")
    while make_laplace(*space, scale=scale).map(l1) > epsilon:  # rounding in the map: a little more noise
        scale = math.nextafter(scale, math.inf) * (1 + 1e-12)
    return Noise(
        lambda: make_laplace(*space, scale=scale),
        lambda moved: make_laplace(*space, scale=scale).map(int(moved)),
        scale,
        _tail(scale),
        "OpenDP make_laplace on integers",
        f"{epsilon:g}-differential privacy",
    )


def _gaussian(l2: float, epsilon: float, delta: float) -> Noise:
    space = vector_domain(atom_domain(T="i64")), l2_distance(T="f64")

    def made(scale: float) -> Any:
        return make_fix_delta(make_zCDP_to_approxDP(make_gaussian(*space, scale=scale)), delta)

    def fits(scale: float) -> bool:
        try:
            return bool(made(scale).map(l2)[0] <= epsilon)
        except OpenDPException:
            return False

    root = math.sqrt(math.log(1 / delta))
    high = l2 / (math.sqrt(2) * (math.sqrt(root**2 + epsilon) - root))  # Bun and Steinke 2016, proposition 1.3: enough
    while not fits(high):
        high *= 1.01
        if high > 1e18:
            raise FailedError("no noise of this size can be drawn; ask at a higher epsilon")
    low = high / 4
    for _ in range(SHARPEN):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    promise = f"({epsilon:g}, {delta:g})-differential privacy"
    # A discrete Gaussian is at least m as rarely as the continuous one is at least m − 1 (Canonne, Kamath, Steinke 2020).
    error = math.ceil(1.96 * high)
    return Noise(
        lambda: made(high), lambda moved: made(high).map(moved)[0], high, error, "OpenDP make_gaussian on integers", promise
    )


def _tail(scale: float) -> int:
    """The least whole number that discrete Laplace noise passes in at most 5 of 100 draws: P(|X| > t) = 2 pᵗ⁺¹ / (1 + p)."""
    p = math.exp(-1 / scale)
    return max(0, math.ceil(math.log(0.025 * (1 + p)) * -scale - 1))
