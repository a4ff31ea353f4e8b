"""What a mean is made of, and how far off it may be: post-processing of noisy sums and counts, so it costs nothing."""

from __future__ import annotations


def centred_mean(total: float, count: float, middle: float, low: float, high: float) -> float | None:
    """The mean from a noisy sum around ``middle`` and a noisy count, kept within the bounds; None if none is left."""
    if count < 1:
        return None
    return min(max(middle + total / count, low), high)


def mean_error(total: float, count: float, total_error: float, count_error: float, width: float) -> float:
    """A bound on the error of a mean that holds where both parts keep theirs (97.5 % each, so 95 % together).

    With S = s + e1 and N = n + e2 the true sum and count, S/N − s/n = (e1·n − s·e2) / (n·N), so the error is at most
    (e1 + |s/n|·e2) / (n − e2); and never more than the width of the bounds.
    """
    if count <= count_error or count < 1:
        return width
    return min(width, (total_error + abs(total / count) * count_error) / (count - count_error))
