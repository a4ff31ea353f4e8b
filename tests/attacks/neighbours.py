"""How much two neighbouring tables can be told apart: a lower bound on ε from samples.

For an ε-differentially private mechanism, P[event | A] ≤ e^ε · P[event | B] for every event. Half of the samples
choose the event ("the statistic is at least t", or "at most t") that tells best; the other half give Clopper–Pearson
bounds on its two probabilities, whose log ratio is then a valid lower bound on ε (as in Jagielski, Ullman and Oprea,
2020, "Auditing differentially private machine learning", section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

FALSE_ALARM, EVENTS = 1e-5, 100


def epsilon_at_least(first: np.ndarray, second: np.ndarray) -> float:
    """A lower bound on ε that is wrong with probability at most `FALSE_ALARM`. Samples are floats, -inf for a failure."""
    half = len(first) // 2
    best, event = -math.inf, None
    for a, b in ((first, second), (second, first)):
        steps = np.sort(np.concatenate([a[:half], b[:half]]))
        for t in np.unique(steps[:: max(1, len(steps) // EVENTS)]):
            for compare in (np.greater_equal, np.less_equal):
                found = _bound(compare(a[:half], t), compare(b[:half], t))
                if found > best:
                    best, event = found, (a, b, t, compare)
    a, b, t, compare = event
    return _bound(compare(a[half:], t), compare(b[half:], t))


def _bound(hits_a: np.ndarray, hits_b: np.ndarray) -> float:
    low = stats.beta.ppf(FALSE_ALARM / 2, hits_a.sum(), len(hits_a) - hits_a.sum() + 1) if hits_a.any() else 0.0
    misses = len(hits_b) - hits_b.sum()
    high = stats.beta.ppf(1 - FALSE_ALARM / 2, hits_b.sum() + 1, misses) if misses else 1.0
    return math.log(low / high) if low > 0 else -math.inf


def samples(ask: Callable[[], float], count: int) -> np.ndarray:
    """``count`` answers."""
    return np.array([ask() for _ in range(count)], dtype=float)
