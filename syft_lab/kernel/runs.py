"""Approved requests become runs: a queue in front of the executor, and a quiet one for runs on the mock.

Everything here happens in threads of its own; the kernel's loop and the service's only ever hand over an id.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

from syft_lab import __version__, values
from syft_lab.cell import Cell, tensor_mock
from syft_lab.errors import LabError, StateError, UsageError
from syft_lab.kernel.catalogue import Catalogue, Dataset
from syft_lab.kernel.desk import Desk, Row
from syft_lab.kernel.executor.data import Data, pack_table, pack_tensor
from syft_lab.kernel.executor.supervisor import Executor, Job, Limits, Outcome
from syft_lab.kernel.registry import Registry
from syft_lab.kernel.store import Store

JOBS = 2
MOCK_SECONDS = 60.0


class Runs:
    """Runs what the desk says is approved, two at a time, oldest first; checks what is filed on the mock."""

    def __init__(
        self,
        desk: Desk,
        executor: Executor,
        catalogue: Catalogue,
        store: Store,
        registry: Registry,
        notify: Callable[[str], None],
    ) -> None:
        self._desk, self._executor, self._catalogue, self._store = desk, executor, catalogue, store
        self._registry, self._notify = registry, notify
        self.limits = Limits()
        self._stopping = False
        self._pool = ThreadPoolExecutor(JOBS, thread_name_prefix="syft-run")
        self._checks = ThreadPoolExecutor(1, thread_name_prefix="syft-mock-run")
        desk.on_change.append(self._hear)

    def resume(self) -> None:
        """After a start: go on with what was approved or filed, and did not begin."""
        for row in self._desk.rows():
            self._hear(row)

    def stop(self) -> None:
        """End what runs (it counts as interrupted) and take nothing more."""
        self._stopping = True
        self._executor.stop()
        for pool in (self._pool, self._checks):
            pool.shutdown(wait=True, cancel_futures=True)

    def _hear(self, row: Row) -> None:
        if row.state == "filed" and self._desk.noted(row, "mock") is None:
            self._take(self._checks, self._check, row)
        elif row.state == "approved":
            self._take(self._pool, self._run, row)
        elif row.state == "cancelled":
            self._executor.cancel(row.request)

    def _take(self, pool: ThreadPoolExecutor, work: Callable[[Row], None], row: Row) -> None:
        try:
            pool.submit(self._guarded, work, row)
        except RuntimeError:  # the owner is stopping; after its next start it goes on
            return

    def _guarded(self, work: Callable[[Row], None], row: Row) -> None:
        try:
            work(row)
        except Exception as fault:
            self._notify(f"request {row.number}: {fault if isinstance(fault, LabError) else type(fault).__name__}")

    # On the mock

    def _check(self, row: Row) -> None:
        """Run a filed cell on the mock in the owner's own sandbox, and note what it touched and gave."""
        try:
            self._check_on_mock(row)
        except LabError as fault:
            if not self._stopping:
                nothing: dict[str, Any] = {"log": "", "error": None, "seconds": 0.0, "peak": 0, "touched": {}, "outputs": []}
                self._desk.note(row, "mock", {"why": f"it could not run: {fault}", **nothing})

    def _check_on_mock(self, row: Row) -> None:
        if self._desk.row(row.request).state != "filed" or self._desk.noted(row, "mock") is not None:
            return
        cell = self._desk.cell(row)
        data: dict[str, Data] = {}
        try:
            for name, dataset in zip(cell.variables, self._datasets(cell), strict=True):
                self._store.warm(dataset.meta["file"], dataset.tensor or dataset.schema)
                if dataset.tensor is None:
                    data[name] = pack_table(self._store.mock(dataset.meta["file"]).to_dict())
                else:
                    data[name] = pack_tensor(tensor_mock(dataset.tensor))
            limits = replace(self.limits, wall=min(self.limits.wall, MOCK_SECONDS))
            job = Job(cell.code, data, cell.returns, cell.params, 0, limits, watch=True)
            found = self._executor.run(f"mock-{row.request}", job)
        finally:
            for each in data.values():
                each.close()
        outputs = [v.describe() for v in values.decode(found.blob).values()] if found.blob else []
        self._desk.note(row, "mock", {**_facts(found), "touched": found.touched, "outputs": outputs})

    def _datasets(self, cell: Cell) -> list[Dataset]:
        live = {(d.name, d.version): d for d in self._catalogue.live()}
        gone = [n for n, v in cell.use if (n, v) not in live]
        if gone:
            raise StateError(f"{gone[0]} was withdrawn")
        return [live[u] for u in cell.use]

    # On the data

    def _run(self, row: Row) -> None:
        row = self._desk.row(row.request)
        if row.state != "approved":
            return  # it was taken twice, or cancelled while it waited
        if row.analyst not in {a.name for a in self._registry.analysts}:
            self._desk.broke(row, "the owner has revoked the access it was filed with")
            return
        seed = secrets.randbits(63)
        details = {"seed": seed, "isolation": self._executor.level.label, "software": f"syft-lab {__version__}"}
        try:
            self._executor.warm()
        except StateError as error:  # it tells of this machine: for the owner only
            if not self._stopping:
                self._desk.broke(row, "the owner's machine can't run code now; ask the owner")
                self._notify(f"request {row.number} could not run: {error}")
            return
        try:
            used = self._desk.start(row, {**details, "limits": asdict(self.limits)})
        except StateError as error:
            self._desk.broke(row, str(error))
            return
        cell, data = self._desk.cell(row), {}
        try:
            for name, dataset in zip(cell.variables, used, strict=True):
                data[name] = self._store.cell(dataset.meta["file"], dataset.tensor or dataset.schema)
            job = Job(cell.code, data, cell.returns, cell.params, seed, self.limits)
            found = self._executor.run(row.request, job, lambda: self._hear(self._desk.row(row.request)))
        except Exception:
            self._settle(row, "the owner's kernel could not run it")
            raise
        finally:
            for each in data.values():
                each.close()
        self._end(row, found, details)

    def _end(self, row: Row, found: Outcome, details: dict[str, Any]) -> None:
        if self._desk.row(row.request).state != "running":
            return  # cancelled
        self._desk.note(row, "run", _facts(found))
        if found.why:
            self._settle(row, found.why)
            self._notify(f"request {row.number} of {row.analyst} failed: {found.why}")
            return
        try:
            row = self._desk.ran(row, found.blob, {**details, "seconds": round(found.seconds, 3)})
        except UsageError:
            return  # cancelled at the last moment
        if row.review:
            self._notify(f"request {row.number} of {row.analyst} ran: look at its result, then release or withhold it")
        else:
            self._desk.release(row.request, f"rule {row.rule}")
            self._notify(f"request {row.number} of {row.analyst} ran and was released by rule {row.rule}")

    def _settle(self, row: Row, why: str) -> None:
        if self._desk.row(row.request).state != "running":
            return
        if self._stopping:
            self._desk.cut_off(row)
        else:
            self._desk.broke(row, why)


def _facts(found: Outcome) -> dict[str, Any]:
    return {"why": found.why, "log": found.log, "error": found.error, "seconds": round(found.seconds, 3), "peak": found.peak}
