"""The owner's audit: what the journal says, and whether all of it still holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from syft_lab import canonical, state
from syft_lab.budget.accountant import Cost
from syft_lab.budget.queries import prepare
from syft_lab.errors import StateError, UsageError, VerificationError
from syft_lab.expr import parse_query
from syft_lab.identity import PublicKeys
from syft_lab.kernel import exports
from syft_lab.kernel.catalogue import Catalogue
from syft_lab.kernel.journal import Journal, verify
from syft_lab.kernel.release import guarantee
from syft_lab.kernel.store import Store
from syft_lab.printable import printed
from syft_lab.receipt import Head, Receipt
from syft_lab.report import COLUMNS, line, report

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """What `Audit.verify` found to hold."""

    head: Head
    tables: int

    @printed
    def __repr__(self) -> str:
        return (f"The journal holds: {self.head.size} entries, every hash and signature checks, the budgets follow from "
                f"the entries, and {self.tables} stored tables are the ones that were published.")  # fmt: skip


@dataclass(frozen=True)
class Replay:
    """Whether doing it again gives the same distribution; ``differs`` names what does not. ``scales`` are of the noise."""

    same: bool
    differs: tuple[str, ...]
    scales: dict[str, str]

    def __bool__(self) -> bool:
        return self.same


class Document(str):
    """A text in Markdown that a notebook renders."""

    def _repr_markdown_(self) -> str:
        return str(self)


class Audit:
    """``owner.audit``: `verify` walks the journal; `log`, `report`, `export` and `replay` show what it says."""

    def __init__(
        self, owner: str, journal: Journal, folder: Path, keys: PublicKeys, catalogue: Catalogue, store: Store
    ) -> None:
        self._owner, self._journal, self._folder, self._keys = owner, journal, folder, keys
        self._catalogue, self._store = catalogue, store

    def verify(self) -> Report:
        """Check every entry, hash, signature, view and stored table; raises VerificationError at the first fault."""
        head = verify(self._folder / "journal.sqlite", self._keys)
        stored = [d for d in self._catalogue.live() if d.meta["persist"]]
        for dataset in stored:
            try:
                digest = self._store.digest(dataset.meta["file"])
            except StateError as error:
                raise VerificationError(str(error)) from None
            if self._store.commitment(dataset.meta["file"], digest, dataset.meta.get("salt")) != dataset.meta["commitment"]:
                raise VerificationError(f"the stored table of {dataset.name} v{dataset.version} was changed after publishing")
        return Report(head, len(stored))

    def log(self) -> pd.DataFrame:
        """The journal as a table: entry, time, kind, who, dataset, what was asked and ε."""
        import pandas as pd

        rows = [line(e.seq, e.time, e.kind, e.body) for e in self._journal.entries()]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def export(self, path: str | Path, *, analyst: str | None = None) -> Path:
        """Write a file that `syft-lab verify` checks offline: all of it, or for one analyst (others as hashes)."""
        path = Path(path)
        shown = None if analyst is None else exports.about(analyst)
        self._journal.append("exported", {"analyst": analyst})
        exports.write(path, self._owner, self._keys, self._journal, shown)
        return path

    def report(self, path: str | Path | None = None, *, analyst: str | None = None) -> Document:
        """For a compliance officer: who asked what and why, who approved, what left, at what cost. Markdown, also to a file."""
        shown = exports.about(analyst) if analyst is not None else lambda _: True
        said = ({"time": e.time, "kind": e.kind, "body": e.body} for e in self._journal.entries() if shown(e))
        made = Document(report(self._owner, said, f"What {analyst} asked of {self._owner}" if analyst else ""))
        if path is not None:
            with state.given(Path(path)) as out:
                out.write(made.encode())
        return made

    def replay(self, receipt: Receipt | str) -> Replay:
        """Do again what a receipt (or the id of a question) is about: see `Replay`. Nothing leaves, nothing is spent.

        A DP answer: the same mechanism at the same cost must have the same noise scales and promise. Raises UsageError where
        the receipt is not about a question (`Request.replay` is for code), or its version of the dataset was withdrawn.
        """
        request = receipt if isinstance(receipt, str) else str(receipt.details["request"])
        rows = self._journal.read("SELECT entry FROM queries WHERE request = ? AND state = 'released'", request)
        if not rows:
            raise UsageError("no question with this receipt was answered here; for code: owner.requests.number(7).replay()")
        said = self._journal.entry(rows[0][0]).body
        dataset = next((d for d in self._catalogue.live() if (d.name, d.version) == (said["dataset"], said["version"])), None)
        if dataset is None:
            raise UsageError(f"{said['dataset']} v{said['version']} was withdrawn; its data are gone")
        if "plan" in said:
            raise UsageError("an answer on tensors is not replayed: its receipt has the plan, and the scale of the noise")
        query = parse_query(canonical.dumps(said["query"]))
        prepared = prepare(dataset.schema, query, Cost(said["epsilon_micro"], said["delta_pico"]))
        made = guarantee(prepared, dataset.unit)
        differs = [k for k in ("guarantee", "neighbours", "mechanism", "scales") if made[k] != said[k]]
        if dataset.meta["commitment"] != said["data"]:
            differs.append("data")
        return Replay(not differs, tuple(differs), dict(made["scales"]))

    @property
    def head(self) -> Head:
        """The newest signed head."""
        return self._journal.head

    @printed
    def __repr__(self) -> str:
        return f"Audit of {len(self._journal)} entries: owner.audit.verify() checks them, owner.audit.log() lists them"
