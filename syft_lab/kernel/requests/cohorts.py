"""Footprints of cohorts: which people code reads, and earlier requests that differ from it by a few of them.

Two exact results on cohorts that differ by one person tell about that person. A footprint is known where an analyst
chose rows by a frame expression (``--use`` a filtered frame); code that filters inside is not seen through. So this is a
hint for the owner, not a proof, and it decides nothing: it annotates requests that a person decides about anyway, in a
thread of its own after they are filed, so that nothing an analyst can observe waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from syft_lab import state
from syft_lab.cell import Cell
from syft_lab.kernel.catalogue import Dataset
from syft_lab.kernel.requests.rows import OPEN, Row, Rows
from syft_lab.kernel.store import Store

LEAST = 3  # people; below it a cohort, or the difference of two, is shown as small


class Cohorts:
    """Footprints of filed requests, in a folder of the owner's state."""

    def __init__(self, desk: Rows, store: Store, folder: Path) -> None:
        self._desk, self._store, self._folder = desk, store, folder
        self._known: dict[str, list[dict[str, Any]]] = {}
        state.make_private(folder)

    def forget(self, request: str) -> None:
        """Delete the footprints of a request that ended without a release: nothing is compared with it."""
        self._known.pop(request, None)
        for path in self._folder.glob(f"{request}-*.npy"):
            path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """After a start: the same for all such requests, and parts of files that were being written."""
        kept = {row.request for row in self._desk.rows(states=(*OPEN, "released"))}
        for path in self._folder.iterdir():
            if path.name.partition("-")[0] not in kept:
                path.unlink(missing_ok=True)

    def look(self, row: Row, cell: Cell, datasets: list[Dataset]) -> list[dict[str, Any]]:
        """For each dataset that a request reads: how many people, and which earlier requests differ by a few."""
        return [self._one(row, i, datasets[i], cell) for i in range(len(datasets)) if datasets[i].tensor is None]

    def _one(self, row: Row, i: int, dataset: Dataset, cell: Cell) -> dict[str, Any]:
        keep = self._store.rows(dataset.meta["file"], dataset.schema, cell.use[i].filter)
        everybody = self._people(dataset, np.ones_like(keep))
        chosen = self._people(dataset, keep)
        by_row = dataset.unit == "row" or self._store.people(dataset.meta["file"]) is None
        about = f"{dataset.name} v{dataset.version}" if by_row else dataset.population
        if cell.filtered:
            with state.writing(self._folder / f"{row.request}-{i}.npy") as out:
                np.save(out, chosen)
        found: dict[str, Any] = {"dataset": dataset.name, "about": about, "unit": "rows" if by_row else "people",
                                 "count": int(chosen.size), "all": int(everybody.size), "index": i,
                                 "filtered": cell.use[i].filter is not None,
                                 "clashes": []}  # fmt: skip
        if cell.use[i].filter is None:
            return {**found, "clashes": self._clashes(row, about, everybody)}
        short = everybody.size - chosen.size
        if 0 < short < LEAST:
            found["clashes"].append({"number": 0, "people": int(short)})
        found["clashes"] += self._clashes(row, about, chosen)
        return found

    def _of(self, row: Row) -> list[dict[str, Any]]:
        """The cohorts that a request reads, if it chose rows; read from disk once."""
        found = self._known.get(row.request)
        if found is None:
            noted = self._desk.noted(row, "cohorts")
            if noted is None:
                return []  # it is being looked at
            found = self._known[row.request] = [c for c in noted["cohorts"] if c["filtered"]]
        return found

    def _people(self, dataset: Dataset, keep: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        hashes = None if dataset.unit == "row" else self._store.people(dataset.meta["file"])
        return np.flatnonzero(keep).astype(np.uint64) if hashes is None else np.unique(hashes[keep])

    def _clashes(self, row: Row, about: str, chosen: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
        """Earlier requests whose cohort differs by a few people; the same cohort is no clash."""
        found = []
        for old in self._desk.rows(states=(*OPEN, "released")):
            if old.number >= row.number:
                continue
            for said in self._of(old):
                if said["about"] != about or abs(said["count"] - chosen.size) >= LEAST:
                    continue
                path = self._folder / f"{old.request}-{said['index']}.npy"
                if path.is_file():
                    apart = np.setxor1d(chosen, np.load(path, allow_pickle=False), assume_unique=True).size
                    if 0 < apart < LEAST:
                        found.append({"number": old.number, "people": int(apart)})
        return found


def describe(cohorts: Mapping[str, Any] | None) -> list[str]:
    """Cohorts in words, one line each where there is something to say. Private: for the owner's eyes."""
    lines = []
    for said in (cohorts or {}).get("cohorts", ()):
        if said["filtered"]:
            small = f", fewer than {LEAST}: its results are about them" if said["count"] < LEAST else ""
            lines.append(f"{said['count']} of {said['all']} {said['unit']} of {said['dataset']}{small}")
        for clash in said["clashes"]:
            other = f"request {clash['number']}" if clash["number"] else f"all of {said['dataset']}"
            lines.append(f"differs from {other} by {clash['people']} of the {said['unit']}: "
                         "two exact results would tell about them")  # fmt: skip
    return lines
