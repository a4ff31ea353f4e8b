"""What every benchmark uses: medians, interleaved with a baseline in the same run, and processes for the other side."""

from __future__ import annotations

import math
import multiprocessing as mp
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table. ``ours`` and ``baseline`` in ``unit``; ``ratio`` is ours / baseline."""

    what: str
    ours: float
    baseline: float
    unit: str
    against: str
    floor: str
    mark: str
    good: bool

    @property
    def ratio(self) -> float:
        """Ours over the baseline; infinite where the baseline was too little to be seen."""
        return self.ours / self.baseline if self.baseline else math.inf


def interleaved(ours: Callable[[], Any], baseline: Callable[[], Any], rounds: int, warmup: int = 2) -> tuple[float, float]:
    """Median seconds of both, measured turn about: what else the machine does hits both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + warmup):
        for call, kept in zip((ours, baseline), times, strict=True):
            start = time.perf_counter()
            call()
            if i >= warmup:
                kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


@contextmanager
def process(target: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """Run ``target(pipe, *arguments)`` in a fresh process; gives the first thing it sends. Ended on the way out."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    worker.start()
    try:
        if not ours.poll(120):
            raise TimeoutError("the other side did not start")
        yield ours.recv()
    finally:
        worker.terminate()
        worker.join(10)
