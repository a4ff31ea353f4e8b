"""The owner's audit: what the journal says, and whether all of it still holds."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syft_lab.errors import StateError, VerificationError
from syft_lab.identity import PublicKeys
from syft_lab.kernel.catalogue import Catalogue
from syft_lab.kernel.journal import Journal, verify
from syft_lab.kernel.store import Store
from syft_lab.receipt import Head

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """What `Audit.verify` found to hold."""

    head: Head
    tables: int

    def __repr__(self) -> str:
        return (f"The journal holds: {self.head.size} entries, every hash and signature checks, the budgets follow from "
                f"the entries, and {self.tables} stored tables are the ones that were published.")  # fmt: skip


class Audit:
    """``owner.audit``: `verify` walks the journal; `log` shows it."""

    def __init__(self, journal: Journal, folder: Path, keys: PublicKeys, catalogue: Catalogue, store: Store) -> None:
        self._journal, self._folder, self._keys = journal, folder, keys
        self._catalogue, self._store = catalogue, store

    def verify(self) -> Report:
        """Check every entry, hash, signature, view and stored table; raises VerificationError at the first fault."""
        head = verify(self._folder / "journal.sqlite", self._keys)
        stored = [d for d in self._catalogue.live() if d.meta["persist"]]
        for dataset in stored:
            try:
                digest = bytes.fromhex(self._store.digest(dataset.meta["file"]))
            except StateError as error:
                raise VerificationError(str(error)) from None
            commitment = hmac.new(bytes.fromhex(dataset.meta["salt"]), digest, hashlib.sha256).hexdigest()
            if commitment != dataset.meta["commitment"]:
                raise VerificationError(f"the stored table of {dataset.name} v{dataset.version} was changed after publishing")
        return Report(head, len(stored))

    def log(self) -> pd.DataFrame:
        """The journal as a table: entry, time, kind, who, dataset and ε."""
        import pandas as pd

        rows = [{"entry": e.seq, "time": e.time, "kind": e.kind, **_summary(e.body)} for e in self._journal.entries()]
        return pd.DataFrame(rows, columns=["entry", "time", "kind", "analyst", "dataset", "epsilon"])

    @property
    def head(self) -> Head:
        """The newest signed head."""
        return self._journal.head

    def __repr__(self) -> str:
        return f"Audit of {len(self._journal)} entries: owner.audit.verify() checks them, owner.audit.log() lists them"


def _summary(body: dict[str, Any]) -> dict[str, Any]:
    cost = body.get("epsilon_micro")
    return {"analyst": body.get("analyst"), "dataset": body.get("dataset"), "epsilon": None if cost is None else cost / 1e6}
