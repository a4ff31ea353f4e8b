"""What an owner hosts: publishing, withdrawing, and the populations that budgets belong to. Part of `Owner`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from syft_lab.budget.accountant import Budget
from syft_lab.errors import StateError, UsageError
from syft_lab.identity import check_name
from syft_lab.kernel import store as tables
from syft_lab.kernel.catalogue import Catalogue, Dataset
from syft_lab.kernel.console import Card, Console
from syft_lab.kernel.journal import Journal
from syft_lab.kernel.ledger import Ledger
from syft_lab.kernel.registry import Registry
from syft_lab.kernel.resemblance import SMALL, same_ids, same_people, same_rows, same_values
from syft_lab.kernel.store import Store, Terms
from syft_lab.schema import Kind, Scalar, schema_to_json


class Publishing:
    """The datasets and populations of an owner."""

    name: str
    console: Console
    _journal: Journal
    _catalogue: Catalogue
    _ledger: Ledger
    _registry: Registry
    _store: Store

    @property
    def running(self) -> bool:
        """Whether this owner answers analysts."""
        raise NotImplementedError

    def _check_running(self) -> None:
        if not self.running:
            raise StateError(f"the owner {self.name} is stopped; run %owner start {self.name}")

    def publish(
        self,
        data: Any,
        name: str,
        *,
        description: str = "",
        tags: Sequence[str] = (),
        population: str | None = None,
        privacy_unit: str,
        max_contributions: int = 1,
        bounds: Mapping[str, tuple[float, float]] | tuple[float, float] | None = None,
        categories: Mapping[str, Sequence[Scalar]] | None = None,
        rows_public: bool = False,
        max_rows: int = tables.MAX_ROWS,
        budget: Budget | None = None,
        mock: Any = "generate",
        mock_rows_public: bool = False,
        kinds: Mapping[str, Kind] | None = None,
        persist: bool = True,
        distinct: bool = False,
        approvals: int = 1,
        answer_seconds: float = 0.0,
        answer_bytes: int = 0,
    ) -> Card:
        """Let analysts ask differentially private questions about a table, and file code about a table or a tensor.

        ``data``: a pandas or polars DataFrame, the path of a Parquet file or folder, or a torch tensor or numpy array
        (whose shape is public, ``rows_public=True``, and whose ``bounds`` are one pair). ``population``: who the data
        are about (default: the dataset's name); all datasets about the same people share one budget.
        ``privacy_unit``: the id column of the people to protect, or "row". ``max_contributions``: rows one person may
        have; more are dropped now. ``bounds``: (low, high) of numeric columns. ``categories``: the values to group by.
        ``rows_public``: whether the number of rows may be known. ``max_rows``: a public bound on it, a constant you
        choose. ``budget``: for a new population, over all analysts together. ``mock``: "generate", or made-up rows; with
        rows of the table among them it is refused, unless ``mock_rows_public=True`` says that these may be seen. ``kinds``:
        what columns hold, "int", "float", "bool" or "text", where the data alone don't say so beyond doubt.
        ``persist=False`` keeps the table in memory only. ``distinct=True`` says that ids which this table shares with another
        population name other people (otherwise such a table is refused: a new name must not bring a new budget).
        ``approvals``: how many people must approve code that reads it. ``answer_seconds`` and ``answer_bytes``: DP answers
        leave at multiples of this time after they were asked, and are padded to multiples of this size (default: neither).

        Publishing the same again is a no-op. Raises UsageError that names the setting at fault.
        """
        self._check_running()
        check_name(name, "the dataset's name")
        flags = {"rows_public": rows_public, "mock_rows_public": mock_rows_public, "persist": persist, "distinct": distinct}
        for said, flag in flags.items():
            if type(flag) is not bool:
                raise UsageError(f"{said} is True or False")
        _check_words(description, tags)
        population = self._population(check_name(population or name, "the population's name"))
        padding = _check_padding(approvals, answer_seconds, answer_bytes)
        terms = Terms(
            privacy_unit,
            max_contributions,
            _bounds(bounds),
            _by_column("categories", categories, "{'ward': ['er', 'icu']}"),
            max_rows,
            _by_column("kinds", kinds, "{'age': 'int'}"),
            mock_rows_public,
        )
        cap = self._budget_for(population, budget)
        prepared = tables.prepare(data, terms, mock, self._store.key)
        if prepared.tensor is not None and not rows_public:
            raise UsageError("the shape of a tensor is public, and so its number of rows: say so with rows_public=True")
        meta: dict[str, Any] = {
            "description": description[:1000],
            "tags": [t[:100] for t in tags],
            "privacy_unit": privacy_unit,
            "schema": schema_to_json(prepared.schema),
            "rows": prepared.rows if rows_public else None,
            "persist": persist,
            **padding,
            **({"tensor": prepared.tensor} if prepared.tensor else {}),
        }
        old = next((d for d in self._catalogue.live() if d.name == name), None)
        version = 1 + max((d.version for d in self._catalogue.all() if d.name == name), default=0)
        if old is None and not distinct:
            self._check_people(name, population, prepared, privacy_unit)
        kept = self._store.put(name, version, prepared, persist)
        digest = kept.pop("digest")
        if old is not None:
            self._store.forget(kept["file"])
            same = old.meta["commitment"] == self._store.commitment(old.meta["file"], digest, old.meta.get("salt"))
            if old.population == population and same and meta.items() <= old.meta.items():
                return self._published(old, prepared, "is published already, unchanged")
            raise UsageError(f"{name} is published already, and this differs: owner.withdraw({name!r}) first")
        meta |= {**kept, "distinct": bool(distinct), "published": datetime.now(UTC).isoformat(timespec="seconds")}
        body = {"dataset": name, "version": version, "population": population, "new_population": cap, "meta": meta}
        self._journal.append("published", body)
        if persist:
            self._store.expect(kept["file"], kept["commitment"])
        dataset = next(d for d in self._catalogue.live() if d.name == name)
        self.console.say(f"published {name} v{version} about {population}")
        return self._published(dataset, prepared, "is published")

    def _population(self, name: str) -> str:
        merged = self._ledger.merged(name)
        if merged is not None:
            raise UsageError(f"the population {name} was merged into {merged}; say population={merged!r}")
        return name

    def _check_people(self, name: str, population: str, prepared: tables.Prepared, unit: str) -> None:
        """Raises UsageError where the table is about people whose budget is elsewhere, as far as ids or rows tell."""
        like = [(d, how) for d in self._catalogue.all() if (how := self._alike(d, prepared, unit))]
        its_own = any(d.population == population for d, _ in like)
        for dataset, how in like:
            # One that was said to be about others may share ids, but no rows, with its own population's tables.
            excused = its_own and how == "ids" and dataset.meta.get("distinct")
            if dataset.population != population and not excused:
                raise UsageError(
                    f"{name} and {dataset.name} v{dataset.version} are about the same people, as far as ids and rows tell: "
                    f"publish it with population={dataset.population!r}, so that they share a budget; join two populations "
                    "with owner.merge_populations; or say distinct=True if they are about others"
                )

    def _alike(self, dataset: Dataset, prepared: tables.Prepared, unit: str) -> str:
        """By what a table is about the people of a dataset, as far as it tells: "rows", else "ids", else "" if it is not."""
        new, old = self._store.likeness_of(prepared), self._store.likeness(dataset.meta["file"])
        if new is not None and old is not None:
            if same_rows(new, old, unit, dataset.unit):
                return "rows"
            if same_people(new, old, unit, dataset.unit):
                return "rows" if "row" not in (unit, dataset.unit) and same_values(new, old, unit, dataset.unit) else "ids"
        rows, kept = self._store.people_of(prepared), self._store.people(dataset.meta["file"])
        if kept is None or (dataset.unit == "row") != (unit == "row") or not same_ids(rows, kept):
            return ""
        if new is None or old is None:  # a tensor, whose rows are compared as they are, or an older version's table
            return "rows" if unit == "row" else "ids"
        few = unit in new.counted and min(np.unique(rows).size, np.unique(kept).size) < SMALL
        whole = old.shapes and min(new.share, old.share) == 1.0  # so that the likeness told of all ids, as they are written now
        return "ids" if unit != "row" and not whole and not few else ""

    def _budget_for(self, population: str, budget: Budget | None) -> dict[str, int] | None:
        """The cap of a population that is new; None for one that exists."""
        if budget is not None and not isinstance(budget, Budget):
            raise UsageError("budget must be a lab.Budget, such as lab.Budget(epsilon=3.0, delta=1e-6)")
        if population not in self._ledger.populations():
            if budget is None:
                raise UsageError(f"{population} is a new population: give it a budget, such as budget=lab.Budget(epsilon=3.0)")
            return budget.cap.to_json()
        cap = self._ledger.population(population).cap
        if budget is not None and budget.cap != cap:
            raise UsageError(f"the population {population} has a budget of {cap} already; only owner.top_up changes it")
        return None

    def _published(self, dataset: Dataset, prepared: tables.Prepared, what: str) -> Card:
        pairs: list[tuple[str, object]] = [
            ("population", f"{dataset.population}, {self._ledger.population(dataset.population).cap}"),
            ("protects", "each row (a person with several rows is not protected as a person)" if dataset.unit == "row" else
             f"each {dataset.unit}, with up to {prepared.schema.max_contributions} rows"),
            ("columns", ", ".join(c.name for c in prepared.schema.columns)) if prepared.tensor is None else
            ("tensor", f"{prepared.tensor['dtype']} {tuple(prepared.tensor['shape'])}, for %%remote cells"),
            ("kept", "in the state folder, readable by you only" if dataset.meta["persist"] else "in memory only"),
        ]  # fmt: skip
        if prepared.dropped:
            pairs.append(("dropped", f"{prepared.dropped} rows without an id, or beyond the contributions (only you see this)"))
        pairs += prepared.remarks
        if prepared.remarks:
            pairs.append(("only you", "see these numbers; analysts read which bounds and categories there are"))
        if prepared.skipped:
            pairs.append(("left out", f"{', '.join(prepared.skipped)}: types that can't be queried yet"))
        units = {d.unit == "row" for d in self._catalogue.live() if d.population == dataset.population}
        warning = (
            f"some datasets about {dataset.population} protect rows, others people: its budget bounds what is learned of a "
            "person only through those that protect people"
        )
        return Card(f"{dataset.name} v{dataset.version} {what}", pairs, warning=warning if len(units) > 1 else "")

    def withdraw(self, name: str) -> None:
        """Stop answering about a dataset and delete its stored table. Answers given before keep their version."""
        self._check_running()
        for dataset in self._catalogue.live():
            if dataset.name == name:
                self._journal.append("withdrawn", {"dataset": name, "version": dataset.version})
                self._store.remove(dataset.meta["file"])
                self.console.say(f"withdrew {name} v{dataset.version}")
                return
        raise UsageError(f"no dataset {ascii(name)[:80]} is published")

    @property
    def datasets(self) -> list[str]:
        """Names of the published datasets."""
        return [d.name for d in self._catalogue.live()]

    def merge_populations(self, population: str, *, into: str) -> Card:
        """Two populations turn out to be the same people: from now on they share one budget. Journaled; it can't be undone.

        What was spent on either is spent, the smaller cap holds, and all datasets of ``population`` are about ``into``.
        Basic composition: whoever is in both lost what both spent.
        """
        self._check_running()
        for name in (population, into):
            if name not in self._ledger.populations():
                raise UsageError(
                    f"there is no population {ascii(name)[:80]}; there are: {', '.join(self._ledger.populations())}"
                )
        if population == into:
            raise UsageError("name two populations")
        self._ledger.merge(population, into)
        self.console.say(f"merged the population {population} into {into}")
        return self.budgets

    @property
    def budgets(self) -> Card:
        """Gauges of all populations, and of every analyst in them."""
        raise NotImplementedError


def _check_padding(approvals: Any, seconds: Any, size: Any) -> dict[str, Any]:
    if type(approvals) is not int or not 1 <= approvals <= 10:
        raise UsageError("approvals is how many people must approve code: 1 to 10")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 60:
        raise UsageError("answer_seconds is a time from 0 (no padding) to 60")
    if type(size) is not int or not 0 <= size <= 1 << 20:
        raise UsageError("answer_bytes is a size from 0 (no padding) to 1048576")
    found = {"approvals": approvals, "answer_ms": round(1000 * seconds), "answer_bytes": size}
    return {k: v for k, v in found.items() if v != (1 if k == "approvals" else 0)}


def _check_words(description: Any, tags: Any) -> None:
    if not isinstance(description, str):
        raise UsageError("description is text: description='…'")
    if isinstance(tags, str) or not isinstance(tags, Sequence) or not all(isinstance(t, str) for t in tags):
        raise UsageError("tags is a list of words: tags=['oncology']")


def _bounds(bounds: Any) -> Any:
    """As given: by column for a table, one pair for a tensor."""
    such = "{'age': (0, 110)}, or for a tensor one pair, bounds=(0, 1)"
    return tuple(bounds) if isinstance(bounds, tuple | list) else _by_column("bounds", bounds, such)


def _by_column(setting: str, given: Any, such: str) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"{setting} are by column: {setting}={such}")
    return dict(given or {})
