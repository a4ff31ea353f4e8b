"""Approved cells: filing, deciding, forking, data in, and what the walls cost a computation."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.measure import Row, interleaved
from syft_lab import values
from syft_lab.cell import Cell
from syft_lab.kernel.executor import levels
from syft_lab.kernel.executor.data import pack_table
from syft_lab.kernel.executor.supervisor import Executor, Job, Limits

TORCH = """
import time, torch
torch.manual_seed(0)
a, w = torch.rand(256, 256), torch.rand(256, 256, requires_grad=True)
def work():
    for _ in range(150):
        loss = torch.relu(a @ w).sum(); loss.backward(); torch.sort(torch.rand(20000))
work()
start = time.perf_counter(); work(); x = time.perf_counter() - start
"""
NOW = "import time\nx = time.monotonic()"


def run(rounds: int = 1) -> list[Row]:
    return [*_requests(rounds), *_executor(rounds)]


def _requests(rounds: int) -> list[Row]:
    import syft_lab as lab

    with tempfile.TemporaryDirectory(dir=".") as folder:
        os.environ["SYFT_LAB_HOME"] = folder
        owner = lab.Owner.start("hospital-a")
        table = pd.DataFrame({"age": np.arange(10_000) % 90})
        owner.publish(table, "patients", privacy_unit="row", bounds={"age": (0, 110)}, budget=lab.Budget(3))
        owner.invite("alice", path=f"{folder}/alice.syft")
        owner._executor.warm()
        session = lab.connect(f"{folder}/alice.syft")
        inbox, seen = owner.inbox, threading.Event()
        inbox.observe(lambda _: seen.set(), "view")

        def cell(code: str) -> Cell:
            return Cell(code, (("patients", 1),), ("x",), {})

        def file_and_see() -> None:
            seen.clear()
            session.file(cell("x = 1"))
            seen.wait(5)

        visible, ping = interleaved(file_and_see, session.ping, 20 * rounds)
        for request in owner.requests:
            request.wait(60).deny("a benchmark")
        starts = []
        for _ in range(10 * rounds):
            session.file(cell(NOW))
            request = owner.requests[0].wait(60)  # the run on the mock is done, and the data are laid out
            start = time.monotonic()
            request.approve(digest=request.digest)
            starts.append(request.wait(60).result["x"] - start)
            request.withhold()
        filed = session.file(cell("x = patients.age.sum()"))
        owner.policy.allow("code", analyst="alice", digest=filed.digest, times=10**6, review=False)
        whole, python = interleaved(
            lambda: session.file(cell("x = patients.age.sum()")).results["x"].get(30), _python, 20 * rounds
        )
        session.close()
        owner.stop()
    ms = 1000
    return [
        Row("filing to visible in the inbox's view", visible * ms, ping * ms, "ms", "session.ping()", "a round trip, one fsync",
            "≤ 100 ms", visible < 0.1),
        Row("approve to first instruction", statistics.median(starts) * ms, python * ms, "ms", "python -c pass",
            "a fork of 400 MB mapped, two fsyncs", "≤ 50 ms", statistics.median(starts) < 0.05),
        Row("file, rule, run, result of a trivial cell", whole * ms, python * ms, "ms", "python -c pass; PySyft 0.9.5: 259–867",
            "a fork, five fsyncs, three round trips", "≤ 60 ms", whole < 0.06),
    ]  # fmt: skip


def _executor(rounds: int) -> list[Row]:
    executor = Executor(levels.probe())
    executor.warm()
    limits = Limits(threads=1)

    def job(code: str, data: dict, name: str) -> object:
        return executor.run(name, Job(code, data, ["x"], {}, 1, limits))

    forks = [job("x = 1", {}, "fork").ready for _ in range(40 * rounds)]
    bare = statistics.median(_timed(_python) for _ in range(10))
    big = pack_table({"v": pl.Series(np.ones(1 << 27))})
    small = pack_table({"v": pl.Series(np.ones(1))})

    def first(data: object) -> float:
        start = time.monotonic()
        return values.decode(job(NOW, {"t": data}, "data").blob)["x"].value() - start

    reach = {k: [] for k in ("big", "small")}
    for _ in range(10 * rounds):
        reach["big"].append(first(big))
        reach["small"].append(first(small))
    large, little = (statistics.median(reach[k]) for k in ("big", "small"))
    inside, outside = [], []
    for _ in range(7 * rounds):
        inside.append(values.decode(job(TORCH, {}, "torch").blob)["x"].value())
        outside.append(_outside())
    within, without = statistics.median(inside), statistics.median(outside)
    executor.stop()
    ms = 1000
    return [
        Row("fork to ready", statistics.median(forks) * ms, bare * ms, "ms", "python -c pass", "page tables of 400 MB",
            "≤ 15 ms", statistics.median(forks) < 0.015),
        Row("a 1 GiB table into a cell", large * ms, little * ms, "ms", "a table of one row", "a mapping: no byte is copied",
            "≤ 50 ms", large < 0.05),
        Row("CPU-bound torch cell", within * ms, without * ms, "ms", "the same in a plain process", "1.00×", "≤ 1.03×",
            within / without <= 1.03),
    ]  # fmt: skip


def _python() -> None:
    subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)


def _timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _outside() -> float:
    code = "import torch\ntorch.set_num_threads(1)\n" + TORCH + "\nprint(x)"
    done = subprocess.run(["nice", "-n", "5", sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)
