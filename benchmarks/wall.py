"""The second wall behind labels: what a release takes when its kinds of operations are new to the owner, and when known.

The owner is a process of its own. Each first release is of a dataset of another number of records, whose claims were never
tried; the baseline is the same release again, in the same run.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

import syft_lab as lab
from benchmarks.measure import Row, process

SIZES = (62, 63, 64, 65, 66)  # of batches: each is another look, so another claim


def serve(pipe: Any, home: str) -> None:
    """An owner with five batches of images, and matrices of a million entries."""
    os.environ["SYFT_LAB_HOME"] = home
    owner = lab.Owner.start("hospital-a")
    terms = {"rows_public": True, "privacy_unit": "row", "bounds": (0, 1)}
    data = {f"images-{n}": torch.rand(n, 1, 28, 28) for n in SIZES} | {f"matrix-{n}": torch.rand(940 + n, 1000) for n in SIZES}
    for name, tensor in data.items():
        owner.publish(tensor, name, budget=lab.Budget(900.0), **terms)
        owner.policy.allow("dp", dataset=name, epsilon_per_query=10)
    owner.invite("alice", path=Path(home) / "alice.syft", budgets=dict.fromkeys(data, 900.0))
    owner.warm()
    pipe.send("ready")
    pipe.recv()


def lenet() -> nn.Module:
    layers = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
    )


def run(rounds: int = 1) -> list[Row]:
    with tempfile.TemporaryDirectory() as home, process(serve, home):
        os.environ["SYFT_LAB_HOME"] = home
        with lab.connect(f"{home}/alice.syft") as session:
            net = lab.send(lenet(), session)
            classes = {n: lab.send(torch.eye(10)[torch.randint(0, 10, (n,))], session) for n in SIZES}

            def loss(n: int) -> Any:
                with torch.no_grad():
                    return -(F.log_softmax(net(session[f"images-{n}"]), 1) * classes[n]).sum(1).clamp(0, 5).mean(0)

            def means(n: int) -> Any:
                return session[f"matrix-{n}"].clamp(0, 1).mean(0)

            _timed(loss, 64, 1), _timed(means, 64, 1)  # the child of the session, and that of the wall, are there
            return [
                *_pair("a LeNet's loss, 64 images", loss, rounds, "≤ 500 ms", 0.5),
                *_pair("column means of 1000 × 1000", means, rounds, "none", None),
            ]


def _timed(make: Callable[[int], Any], size: int, part: int) -> float:
    value = make(size)
    start = time.perf_counter()
    value.release(epsilon=0.1 + part * 1e-6).value  # noqa: B018 - each is another question
    return time.perf_counter() - start


def _pair(what: str, make: Callable[[int], Any], rounds: int, mark: str, most: float | None) -> list[Row]:
    """First releases at sizes that are new, and the same again."""
    first, again = [], []
    for size in SIZES:
        if size != 64:
            first.append(_timed(make, size, 2))
        again += [_timed(make, size, 3 + i) for i in range(2 * rounds)]
    a, b = statistics.median(first), statistics.median(again)
    return [Row(f"first release: {what}", a * 1e3, b * 1e3, "ms", "the same release again", "each kind some twenty times", mark,
                most is None or a <= most)]  # fmt: skip
