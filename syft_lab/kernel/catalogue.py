"""Published datasets: what the journal says about each version, and the part of it that analysts may see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from syft_lab import canonical
from syft_lab.errors import RefusedError
from syft_lab.kernel.journal import Journal
from syft_lab.kernel.registry import Analyst
from syft_lab.receipt import LIMIT
from syft_lab.schema import Schema, schema_from_json


@dataclass(frozen=True)
class Dataset:
    """One version of a published table. ``meta`` is what the journal keeps, secrets of the owner among it."""

    name: str
    version: int
    population: str
    meta: dict[str, Any]
    withdrawn: bool

    @cached_property
    def schema(self) -> Schema:
        """The public schema."""
        return schema_from_json(self.meta["schema"])

    @property
    def tensor(self) -> dict[str, Any] | None:
        """Type, shape and bounds of a tensor; None for a table."""
        return self.meta.get("tensor")

    @property
    def unit(self) -> str:
        """Who is protected: 'row', or the name of the id column."""
        return str(self.meta["privacy_unit"])

    def public(self) -> dict[str, Any]:
        """What analysts may know: everything the owner declared, nothing computed from rows."""
        shown = ("description", "tags", "privacy_unit", "schema", "rows", "published")
        return {"name": self.name, "version": self.version, "population": self.population,
                **{k: self.meta[k] for k in shown}, **({"tensor": self.tensor} if self.tensor else {})}  # fmt: skip


def dataset_of(source: str) -> tuple[str, int] | None:
    """Name and version of the dataset that a label names as a source; None for what a partner handed over."""
    name, _, version = source.rpartition(" v")
    return (name, int(version)) if name and version.isdecimal() else None


class Catalogue:
    """The datasets of a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[tuple[str, int], Dataset] = {}  # what was published never changes, and is read for each question

    def all(self) -> list[Dataset]:
        """Every version ever published, oldest first."""
        rows = self._journal.read("SELECT name, version, withdrawn, population FROM datasets ORDER BY name, version")
        return [self._dataset(name, version, bool(withdrawn), population) for name, version, withdrawn, population in rows]

    def _dataset(self, name: str, version: int, withdrawn: bool, population: str) -> Dataset:
        found = self._known.get((name, version))
        if found is None or (found.withdrawn, found.population) != (withdrawn, population):
            ((meta,),) = self._journal.read("SELECT meta FROM datasets WHERE name = ? AND version = ?", name, version)
            found = Dataset(name, version, population, canonical.loads(meta, limit=LIMIT), withdrawn)
            self._known[name, version] = found
        return found

    def live(self) -> list[Dataset]:
        """The versions that can be asked about: one a name."""
        return [d for d in self.all() if not d.withdrawn]

    def open_to(self, analyst: Analyst) -> list[Dataset]:
        """The live datasets that the analyst's invitation names."""
        return [d for d in self.live() if d.name in analyst.datasets]

    def find(self, analyst: Analyst, name: str, version: int) -> Dataset:
        """The dataset for a request; raises RefusedError. What was never open to the analyst is not said to exist."""
        for dataset in self.open_to(analyst):
            if dataset.name == name and dataset.version == version:
                return dataset
        known = ", ".join(d.name for d in self.open_to(analyst)) or "none"
        if name in analyst.datasets:
            raise RefusedError(f"version {version} of {name} was withdrawn; ask again on what is published now ({known})")
        raise RefusedError(f"no dataset {ascii(name)[:80]} is open to {analyst.name}; open are: {known}")
