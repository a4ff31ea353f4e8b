"""Durable debits: reserve and settle in the signed journal, against bare durable commits of SQLite in the same run."""

from __future__ import annotations

import secrets
import sqlite3
import tempfile
from pathlib import Path

from benchmarks.measure import Row, interleaved
from syft_lab.budget.accountant import Cost
from syft_lab.identity import Keys
from syft_lab.kernel.journal import Journal
from syft_lab.kernel.ledger import Ledger, Question


def run(rounds: int = 1) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=".") as folder:  # on a real disk: a temporary file system makes fsync free
        journal = Journal(Path(folder) / "journal.sqlite", Keys.generate())
        journal.append("opened", {})
        cap = Cost(10**9, 0).to_json()
        journal.append("published", {"dataset": "d", "version": 1, "population": "p", "meta": {}, "new_population": cap})
        journal.append("invited", {"invitation": "i", "analyst": "a", "role": "analyst", "datasets": [], "expires": "",
                                   "budgets": {"p": cap}})  # fmt: skip
        ledger = Ledger(journal)
        bare = sqlite3.connect(Path(folder) / "bare.sqlite", isolation_level=None)
        for line in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE d (cost INTEGER, data BLOB)"):
            bare.execute(line)

        def debit() -> None:
            ledger.reserve(Question(secrets.token_hex(16), "a", "d", 1, "p", "0" * 64, Cost(1)), {})

        def commit() -> None:
            bare.execute("INSERT INTO d VALUES (1, ?)", (bytes(400),))

        ours, baseline = interleaved(debit, commit, 2000 * rounds, 50)
        journal.close()
        bare.close()
    return [Row("durable debits", 1 / ours, 1 / baseline, "per s", "bare SQLite commits, synchronous=FULL",
                "one fsync, one Ed25519 signature", "≥ 500 per s", 1 / ours >= 500)]  # fmt: skip
