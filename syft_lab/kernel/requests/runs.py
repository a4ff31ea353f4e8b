"""Approved requests become runs: a fair queue in front of the executor, and a quiet one for runs on the mock.

Everything here happens in threads of its own; the kernel's loop and the service's only ever hand over an id.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from syft_lab import __version__, values
from syft_lab.budget.queries import passing
from syft_lab.budget.tables import encode
from syft_lab.cell import Cell, tensor_mock
from syft_lab.errors import LabError, StateError, UsageError
from syft_lab.kernel import mock as mocks
from syft_lab.kernel.catalogue import Catalogue, Dataset
from syft_lab.kernel.executor.data import Data, pack_table, pack_tensor
from syft_lab.kernel.executor.supervisor import LOST, Executor, Job, Limits, Outcome
from syft_lab.kernel.registry import Registry
from syft_lab.kernel.requests.behaviour import dropped, earlier, grown
from syft_lab.kernel.requests.cohorts import Cohorts
from syft_lab.kernel.requests.desk import Desk
from syft_lab.kernel.requests.hints import hints
from syft_lab.kernel.requests.queue import FairQueue
from syft_lab.kernel.requests.rows import FELL, UNDECIDED, Row
from syft_lab.kernel.roles import OWNER
from syft_lab.kernel.rulebook import Rulebook
from syft_lab.kernel.store import Store

SLOTS = max(3, os.cpu_count() or 2)
MOCK_SECONDS, QUICK_SECONDS = 60.0, 5.0
MOCK_DROPS, PEOPLE = 3, 8
MAX_NOTED = 1 << 20  # characters that are kept of a run on the mock
HOUSEKEEPING_SECONDS = 60.0
NO_VALUE = "the value could not be computed"
NOT_KEPT = "the owner's kernel could not keep its result"
Give = Callable[[Cell, Sequence[Dataset], int], Data]  # the data of the cell's i-th dataset


class Runs:
    """Runs what the desk says is approved, oldest first but fairly; looks at what is filed, on the mock."""

    def __init__(
        self, desk: Desk, executor: Executor, catalogue: Catalogue, store: Store, registry: Registry, cohorts: Cohorts,
        rulebook: Rulebook, notify: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._desk, self._executor, self._catalogue, self._store = desk, executor, catalogue, store
        self._registry, self._cohorts, self._rulebook, self._notify = registry, cohorts, rulebook, notify
        self._stopping = False
        self._ending = threading.Event()
        self._live: set[str] = set()
        self._queue = FairQueue(SLOTS)
        self._checks = ThreadPoolExecutor(1, thread_name_prefix="syft-mock-run")
        self._guards = ThreadPoolExecutor(1, thread_name_prefix="syft-guard")
        self._keeper = threading.Thread(target=self._keep_house, name="syft-housekeeping", daemon=True)
        desk.on_change.append(self._hear)

    def resume(self) -> None:
        """After a start: go on with what was approved or filed, and did not begin."""
        self._cohorts.tidy()
        for row in self._desk.rows(states=("approved", *UNDECIDED)):
            self._hear(row)
        self._keeper.start()

    def stop(self) -> None:
        """End what runs (it counts as interrupted) and take nothing more."""
        self._stopping = True
        self._ending.set()
        self._executor.stop()
        self._queue.stop()
        for pool in (self._checks, self._guards):
            pool.shutdown(wait=True, cancel_futures=True)
        if self._keeper.is_alive():
            self._keeper.join()

    def _keep_house(self) -> None:
        """Once a minute: requests that nobody decided expire; a run whose end could not be written down (full disk) is over."""
        while not self._ending.wait(HOUSEKEEPING_SECONDS):
            try:
                self._desk.expire()
                for row in self._desk.rows(states=("running",)):
                    if row.request not in self._live:
                        self._settle(row, NOT_KEPT)
            except LabError as fault:
                if not self._stopping:
                    self._notify(f"housekeeping: {fault}")

    def _hear(self, row: Row) -> None:
        if row.state not in FELL and self._desk.noted(row, "cohorts") is None:
            self._submit(self._guards, self._guard, row)
        if row.state in UNDECIDED and self._desk.noted(row, "mock") is None:
            self._submit(self._checks, self._check, row)
        elif row.state == "approved":
            self._queue.put(row.analyst, lambda: self._guarded(self._run, row))
        elif row.state in FELL:
            self._cohorts.forget(row.request)
            for name in (row.request, f"mock-{row.request}"):
                self._executor.cancel(name)

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[[Row], None], row: Row) -> None:
        with contextlib.suppress(RuntimeError):  # the owner is stopping; after its next start it goes on
            pool.submit(self._guarded, work, row)

    def _guarded(self, work: Callable[[Row], None], row: Row) -> None:
        try:
            work(row)
        except Exception as fault:
            if not self._stopping:
                self._notify(f"request {row.number}: {fault if isinstance(fault, LabError) else type(fault).__name__}")

    def _limits(self, row: Row) -> Limits:
        return self._desk.settings.limits(self._desk.terms(row).get("role", "analyst"))

    @contextmanager
    def _given(self, cell: Cell, datasets: Sequence[Dataset], give: Give) -> Iterator[dict[str, Data]]:
        """What a cell reads, by variable; closed afterwards."""
        data: dict[str, Data] = {}
        try:
            for i, name in enumerate(cell.variables):
                data[name] = give(cell, datasets, i)
            yield data
        finally:
            for each in data.values():
                each.close()

    # On the mock

    def _check(self, row: Row) -> None:
        """Look at a filed cell: runs on mocks in the owner's own sandbox, hints, footprints, changes since earlier ones."""
        if self._desk.row(row.request).state not in UNDECIDED or self._desk.noted(row, "mock") is not None:
            return
        cell = self._desk.cell(row)
        self._desk.note(row, "earlier", {**earlier(self._desk, row), "hints": hints(cell)}, quietly=True)
        try:
            found = self._looked_at(row, cell)
        except Exception as fault:
            if self._stopping:
                return
            why = f"it could not run: {fault if isinstance(fault, LabError) else type(fault).__name__}"
            found = {"why": why, "log": "", "error": None, "seconds": 0.0, "peak": 0, "touched": {}, "outputs": []}
        if len(json.dumps(found)) > MAX_NOTED:
            found = {**found, "why": "what it returns takes too much text to describe", "outputs": [], "touched": {}, "log": ""}
        self._desk.note(row, "mock", found)
        self._desk.decide(row.request)

    def _guard(self, row: Row) -> None:
        """Note whom a request reads. It looks at real data, so it has a thread of its own: no decision waits for it."""
        if self._desk.row(row.request).state in FELL or self._desk.noted(row, "cohorts") is not None:
            return
        cell = self._desk.cell(row)
        try:
            found = self._cohorts.look(row, cell, self._datasets(cell))
        except Exception:  # withdrawn meanwhile, or a full disk: nothing is known
            found = []
        if not self._stopping:
            self._desk.note(row, "cohorts", {"cohorts": found})
        if self._desk.row(row.request).state in FELL:  # meanwhile
            self._cohorts.forget(row.request)

    def _looked_at(self, row: Row, cell: Cell) -> dict[str, Any]:
        """What its runs on mocks gave."""
        datasets = self._datasets(cell)
        for dataset in datasets:
            self._store.warm(dataset.meta["file"], dataset.tensor or dataset.schema)
        return self._on_mocks(row, cell, datasets)

    def _on_mocks(self, row: Row, cell: Cell, datasets: Sequence[Dataset]) -> dict[str, Any]:
        limits = self._limits(row)
        limits = replace(limits, wall=min(limits.wall, MOCK_SECONDS))

        def run(size: int, drop: int | None = None, watch: bool = False) -> Outcome:
            with self._given(cell, datasets, lambda c, d, i: self._mock(c, d, i, size, drop)) as data:
                job = Job(cell.code, data, cell.returns, cell.params, 0, limits, watch=watch)
                return self._executor.run(f"mock-{row.request}", job)

        first = run(1, watch=True)
        found: dict[str, Any] = {**_facts(first), "touched": first.touched, "outputs": [], "grows": None}
        if first.why:
            return found
        found["outputs"] = [v.describe() for v in values.decode(first.blob).values()]
        limits = replace(limits, wall=min(limits.wall, 5 * first.seconds + QUICK_SECONDS))  # others wait for their turn
        if first.seconds < MOCK_SECONDS / 4:
            twice = run(2)
            found["grows"] = None if twice.why else grown(first.blob, twice.blob)
        if first.seconds < QUICK_SECONDS:
            found["dropped"] = dropped(first.blob, [run(1, drop).blob or None for drop in range(MOCK_DROPS)])
        return found

    def _mock(self, cell: Cell, datasets: Sequence[Dataset], i: int, size: int, drop: int | None) -> Data:
        """The mock of a dataset, with ``size`` times the rows, or without one of them."""
        dataset, use = datasets[i], cell.use[i]
        if dataset.tensor is not None:
            tensor = tensor_mock(dataset.tensor)
            tensor = np.concatenate([tensor] * size)
            return pack_tensor(tensor if drop is None or len(tensor) < 2 else np.delete(tensor, drop % len(tensor), axis=0))
        mock = self._store.mock(dataset.meta["file"])
        mock = mocks.doubled(dataset.schema, mock) if size == 2 else mock
        if drop is not None and mock.height > 1:
            mock = mocks.without(mock, drop * mock.height // MOCK_DROPS)
        if use.filter is not None:
            mock = mock.filter(passing(dataset.schema, use.filter, encode(dataset.schema, mock.lazy())))
        columns = mock.to_dict()
        return pack_table({n: columns[n] for n in use.columns} if use.columns else columns)

    def _datasets(self, cell: Cell) -> list[Dataset]:
        live = {(d.name, d.version): d for d in self._catalogue.live()}
        gone = [u.dataset for u in cell.use if (u.dataset, u.version) not in live]
        if gone:
            raise StateError(f"{gone[0]} was withdrawn")
        return [live[u.dataset, u.version] for u in cell.use]

    # On the data

    def _real(self, without: np.uint64 | None = None) -> Give:
        """What gives a cell the published data, all of it or without one person."""

        def give(cell: Cell, datasets: Sequence[Dataset], i: int) -> Data:
            dataset, use = datasets[i], cell.use[i]
            file, form = dataset.meta["file"], dataset.tensor or dataset.schema
            keep = None if use.filter is None else self._store.rows(file, dataset.schema, use.filter)
            if without is not None:
                others = self._whose(dataset) != without
                keep = others if keep is None else keep & others
            return self._store.part(file, form, keep, use.columns)

        return give

    def _whose(self, dataset: Dataset) -> np.ndarray[Any, Any]:
        """Whose each row is: a hash of the person, or the row's position."""
        hashes = None if dataset.unit == "row" else self._store.people(dataset.meta["file"])
        if hashes is not None:
            return hashes
        if dataset.tensor is not None:
            return np.arange(dataset.tensor["shape"][0], dtype=np.uint64)
        return np.arange(len(self._store.rows(dataset.meta["file"], dataset.schema, None)), dtype=np.uint64)

    def again(self, row: Row, seed: int, without: np.uint64 | None = None) -> Outcome:
        """Run a request's code once more on its data, for the owner's eyes; raises StateError where they were withdrawn."""
        if self._desk.existed(row):
            raise UsageError(
                f"request {row.number} asks for a value of a plan, which is there already: no code can be run again"
            )
        cell = self._desk.cell(row)
        datasets = self._datasets(cell)
        name = f"again-{row.request}-{secrets.token_hex(4)}"
        with self._given(cell, datasets, self._real(without)) as data:
            return self._executor.run(name, Job(cell.code, data, cell.returns, cell.params, seed, self._limits(row)))

    def drop_people(self, row: Row, people: int = PEOPLE) -> dict[str, Any]:
        """Run a request's code on the real data without one person, for some people; the owner alone sees what it changed.

        Chosen are those who hold the largest and smallest values, and others at random. Never an input to a policy.
        """
        self._desk.tried(row, "drop people")
        cell, seed = self._desk.cell(row), secrets.randbits(63)
        datasets = self._datasets(cell)
        base = self.again(row, seed)
        if base.why:
            raise UsageError(f"request {row.number} fails on the real data: {base.why}")
        found = dropped(base.blob, [self.again(row, seed, one).blob or None for one in self._chosen(cell, datasets[0], people)])
        self._desk.note(row, "dropped", found)
        return found

    def _chosen(self, cell: Cell, dataset: Dataset, count: int) -> list[np.uint64]:
        """People among those whom the cell reads."""
        whose = self._whose(dataset)
        found: list[np.uint64] = []
        if dataset.tensor is None:
            stored = self._store.table(dataset.meta["file"]).collect()
            if cell.use[0].filter is not None:
                keep = self._store.rows(dataset.meta["file"], dataset.schema, cell.use[0].filter)
                stored, whose = stored.filter(keep), whose[keep]
            for series in stored.get_columns():
                if series.dtype.is_numeric() and series.name[0] == "v" and series.len() > series.null_count():
                    found += [np.uint64(whose[series.arg_max()]), np.uint64(whose[series.arg_min()])]
        everybody = np.unique(whose)
        if everybody.size < 2:
            return []
        at = np.frombuffer(secrets.token_bytes(8 * count), dtype=np.uint64) % np.uint64(everybody.size)
        chosen = list(dict.fromkeys([*found[: count - 2], *everybody[at]]))
        return chosen[:count]

    def replay(self, row: Row) -> bool:
        """Whether the same code on the same data with the same seed gives the same values, bit for bit."""
        salt, ran = self._desk.kept_run(row)
        self._desk.tried(row, "replay")
        found = self.again(row, ran["seed"])
        if found.why:
            raise StateError(f"request {row.number} could not be run again: {found.why}")
        return hmac.compare_digest(hmac.new(salt, found.blob, hashlib.sha256).hexdigest(), ran["commitment"])

    def _run(self, row: Row) -> None:
        row = self._desk.row(row.request)
        if row.state != "approved":
            return  # it was taken twice, or cancelled while it waited
        if row.analyst not in {a.name for a in self._registry.analysts if "file" in a.rights}:
            self._desk.broke(row, "the owner has revoked the access it was filed with")
            return
        seed, limits = secrets.randbits(63), self._limits(row)
        details = {"seed": seed, "isolation": self._executor.level.label, "software": f"syft-lab {__version__}"}
        try:
            if self._desk.given(row) is None:
                self._executor.warm()
        except StateError as error:  # it tells of this machine: for the owner only
            if not self._stopping:
                self._desk.broke(row, "the owner's machine can't run code now; ask the owner")
                self._notify(f"request {row.number} could not run: {error}")
            return
        try:
            used = self._desk.start(row, {**details, "limits": asdict(limits)})
        except StateError as error:
            self._desk.broke(row, str(error))
            return
        cell = self._desk.cell(row)
        self._live.add(row.request)
        try:
            self._run_and_end(row, cell, used, seed, limits, details)
        finally:
            self._live.discard(row.request)

    def _run_and_end(
        self, row: Row, cell: Cell, used: list[Dataset], seed: int, limits: Limits, details: dict[str, Any]
    ) -> None:
        value = self._desk.given(row)
        if value is not None:  # it was computed before it was asked for
            self._end(row, Outcome("" if value else NO_VALUE, value, "", None, {}, 0.0, 0.0, 0), details)
            return
        try:
            with self._given(cell, used, self._real()) as data:
                job = Job(cell.code, data, cell.returns, cell.params, seed, limits)
                found = self._executor.run(row.request, job, lambda: self._hear(self._desk.row(row.request)))
        except Exception:
            self._settle(row, "the owner's kernel could not run it")
            raise
        try:
            self._end(row, found, details)
        except OSError:  # a full disk, most likely; the words of the system name paths
            self._settle(row, NOT_KEPT)
            raise

    def _end(self, row: Row, found: Outcome, details: dict[str, Any]) -> None:
        if found.why == LOST and not self._stopping:
            threading.Thread(target=self._warm_again, name="syft-warm", daemon=True).start()
        if self._desk.row(row.request).state != "running":
            return  # cancelled
        if found.why:
            self._desk.note(row, "run", _facts(found))
            self._settle(row, found.why)
            self._notify(f"request {row.number} of {row.analyst} failed: {found.why}")
            return
        held = "" if row.review else self._held(row, found.blob)
        self._desk.note(row, "run", {**_facts(found), "held": held})
        try:
            row = self._desk.ran(row, found.blob, {**details, "seconds": round(found.seconds, 3)})
        except UsageError:
            return  # cancelled at the last moment
        if row.review or held:
            why = f": {held}" if held else ""
            self._notify(f"request {row.number} of {row.analyst} ran{why}: look at its result, then release or withhold it")
        else:
            by = OWNER if row.rule is None else f"rule {row.rule}"
            self._desk.release(row.request, by)
            self._notify(f"request {row.number} of {row.analyst} ran and was released by {by}")

    def _held(self, row: Row, blob: bytes) -> str:
        """Why a result does not leave by its rule, but waits for the owner; empty where it does."""
        if row.rule is None:  # its owner said so
            return ""
        rule = next((r for r in self._rulebook.rules if r.id == row.rule), None)
        if rule is None:
            return "the rule that let it run was taken back"
        return "" if rule.outputs is None else rule.outputs.judge_result(values.decode(blob).values())

    def _warm_again(self) -> None:
        """The fork server was lost: boot another, so that the next run does not wait for it."""
        try:
            self._executor.warm()
        except StateError as error:
            if not self._stopping:
                self._notify(str(error))

    def _settle(self, row: Row, why: str) -> None:
        if self._desk.row(row.request).state != "running":
            return
        if self._stopping:
            self._desk.cut_off(row)
        else:
            self._desk.broke(row, why)


def _facts(found: Outcome) -> dict[str, Any]:
    return {"why": found.why, "log": found.log, "error": found.error, "seconds": round(found.seconds, 3), "peak": found.peak}
