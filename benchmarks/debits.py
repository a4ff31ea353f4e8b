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


def journal_with_terms(folder: str) -> tuple[Journal, Keys]:
    """A journal on disk in which an analyst may ask of one dataset as often as they like."""
    keys = Keys.generate()
    journal = Journal(Path(folder) / "journal.sqlite", keys)
    journal.append("opened", {})
    cap = Cost(10**9, 0).to_json()
    journal.append("published", {"dataset": "d", "version": 1, "population": "p", "meta": {}, "new_population": cap})
    journal.append("invited", {"invitation": "i", "analyst": "a", "role": "analyst", "datasets": [], "expires": "",
                               "budgets": {"p": cap}})  # fmt: skip
    return journal, keys


def beside_sqlite(journal: Journal, folder: str, rounds: int, warmup: int) -> tuple[float, float]:
    """Seconds of a debit, and of a bare durable commit of SQLite."""
    ledger = Ledger(journal)
    bare = sqlite3.connect(Path(folder) / "bare.sqlite", isolation_level=None)
    for line in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE d (cost INTEGER, data BLOB)"):
        bare.execute(line)
    try:
        return interleaved(
            lambda: ledger.reserve(Question(secrets.token_hex(16), "a", "d", 1, "p", "0" * 64, Cost(1)), {}),
            lambda: bare.execute("INSERT INTO d VALUES (1, ?)", (bytes(400),)),
            rounds, warmup,
        )  # fmt: skip
    finally:
        bare.close()


def run(rounds: int = 1) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=".") as folder:  # on a real disk: a temporary file system makes fsync free
        journal, _ = journal_with_terms(folder)
        ours, baseline = beside_sqlite(journal, folder, 2000 * rounds, 50)
        journal.close()
    return [Row("durable debits", 1 / ours, 1 / baseline, "per s", "bare SQLite commits, synchronous=FULL",
                "one fsync, one Ed25519 signature", "≥ 500 per s", 1 / ours >= 500)]  # fmt: skip
