"""How far off a mean may be, from the noise's law: post-processing of noisy sums, so it costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

CONFIDENCE = 0.95
SUREST = 1 - 1e-9
POINTS, CHUNK, HALVINGS = 1025, 256, 60  # POINTS: a power of two and one, so that halves are exact

Array = np.ndarray[Any, Any]


def mean_interval(
    pairs: Sequence[tuple[float, float]], scale: float, confidence: float = CONFIDENCE
) -> list[tuple[float, float]]:
    """Where means lie, as shares of the width of their bounds: (low, high) for each pair, with 0 ≤ low ≤ high ≤ 1.

    A pair is A + noise and B + noise, Laplace of ``scale`` each, with A = Σu and B = Σ(1 − u) for the values' shares u. The
    true mean w has A(1 − w) = Bw, so what the noisy pair gives for it is the noise (1 − w)·X − w·Y alone. The interval is from
    the least to the greatest w for which that is within the noise's quantile: true in ``confidence`` of releases, however few
    rows there are. Where no w explains a pair so, as in a few releases beside a bound, the confidence is raised until one does.
    """
    far = scale * _quantiles(confidence)
    found: list[tuple[float, float]] = []
    for start in range(0, len(pairs), CHUNK):
        above, below = np.array(pairs[start : start + CHUNK], dtype=float).T
        both = zip(_lowest(above, below, far), 1 - _lowest(below, above, far), strict=True)
        found += [(float(low), float(high)) for low, high in both]
    for i, ends in enumerate(found):
        if np.isnan(ends).any():
            surer = 1 - (1 - confidence) / 10
            found[i] = (0.0, 1.0) if surer > SUREST else mean_interval([pairs[i]], scale, surer)[0]
    return found


def _lowest(above: Array, below: Array, far: Array) -> Array:
    """The low ends; NaN where no mean explains the pair."""
    total, grid = above + below, np.linspace(0, 1, POINTS)

    def holds(w: Array) -> Array:
        return np.asarray(np.abs(above - total * w) <= np.interp(w, grid, far))

    held = np.abs(above[:, None] - total[:, None] * grid) <= far
    middle = np.clip(np.divide(above, total, out=np.full_like(total, 0.5), where=total != 0), 0, 1)
    inside = np.where(held.any(1), grid[held.argmax(1)], np.inf)
    inside = np.where(holds(middle), np.minimum(inside, middle), inside)
    known, inside = np.isfinite(inside), np.where(np.isfinite(inside), inside, 0.0)
    outside = grid[np.maximum(np.ceil(inside * (POINTS - 1)).astype(int) - 1, 0)]
    for _ in range(HALVINGS):
        half = (inside + outside) / 2
        good = holds(half)
        inside, outside = np.where(good, half, inside), np.where(good, outside, half)
    return np.where(known, outside, np.nan)


@lru_cache(maxsize=16)
def _quantiles(confidence: float) -> Array:
    """What |(1 − w)·X − w·Y| stays within, for X and Y Laplace of scale 1 and each w of a grid from 0 to 1.

    With a = 1 − w and b = w: P(|aX − bY| > t) = (a² e^(−t/a) − b² e^(−t/b)) / (a² − b²), and (1 + t/2a) e^(−t/a) for a = b.
    """
    w = np.linspace(0, 1, POINTS)
    a, b = np.maximum(1 - w, w), np.minimum(1 - w, w)
    same, alone = a == b, b == 0
    low, high = np.zeros(POINTS), np.full(POINTS, 64.0)
    for _ in range(HALVINGS):
        t = (low + high) / 2
        second = np.where(alone, 0.0, b**2 * np.exp(-t / np.where(alone, 1.0, b)))
        tail = np.where(
            same, (1 + t / (2 * a)) * np.exp(-t / a), (a**2 * np.exp(-t / a) - second) / np.where(same, 1.0, a**2 - b**2)
        )
        beyond = tail > 1 - confidence
        low, high = np.where(beyond, t, low), np.where(beyond, high, t)
    return high
