"""What an owner waits for: a policy's decision, the audit, the inbox, and a debit in an old journal."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.debits import beside_sqlite, journal_with_terms
from benchmarks.measure import Row, interleaved
from syft_lab import canonical, merkle
from syft_lab.identity import Keys
from syft_lab.kernel import journal as journals
from syft_lab.kernel.history import History
from syft_lab.kernel.journal import Entry, Journal
from syft_lab.kernel.policy import Case, Rule, decide
from syft_lab.receipt import Head

HISTORY, VERIFIED, SHOWN, OLD = 10_000, 5_000, 500, 1_000_000


def run(rounds: int = 1) -> list[Row]:
    return [_decision(rounds), _verified(rounds), _inbox(rounds), *_old_journal(rounds)]


def _decision(rounds: int) -> Row:
    """Twenty rules with quotas, of which the last fits; 10 000 requests were decided before."""
    now = datetime.now(UTC)
    digest = "sha256:" + "a" * 64
    params = {"age": {"low": 0, "high": 99}}
    rules = [
        Rule(i, "code", analyst=f"analyst-{i}", dataset="patients", template=digest, params=params, times=10**6, per=86400.0)
        for i in range(20)
    ]
    full = History()
    for i in range(HISTORY):
        time_text = (now - timedelta(seconds=HISTORY - i)).isoformat(timespec="microseconds")
        body = {"rule": i % 20 if i % 2 else None, "digest": f"sha256:{i:064x}", "analyst": "alice"}
        full.add(Entry(i, b"", "approved", time_text, body))
    case = Case("code", "analyst-19", "analyst", ("patients",), now, digest=digest, template=digest, params={"age": 40})
    ours, baseline = interleaved(lambda: decide(rules, case, full), lambda: decide(rules, case, History()), 2000 * rounds)
    return Row("policy decision, 10 000 decided before", ours * 1e3, baseline * 1e3, "ms", "the same without a past",
               "20 comparisons, one bisection", "≤ 0.2 ms", ours <= 2e-4)  # fmt: skip


def _verified(rounds: int) -> Row:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path, keys = Path(folder) / "journal.sqlite", Keys.generate()
        journal = Journal(path, keys)
        journal._db.execute("PRAGMA synchronous=OFF")  # to make it, not to read it
        for _ in range(VERIFIED):
            journal.append("exported", {"analyst": None})
        journal.close()
        head = Head(1, "00" * 32, "", "")
        signature = keys.sign("head", head.signed_part())

        def signatures() -> None:
            for _ in range(VERIFIED):
                keys.public.verify("head", head.signed_part(), signature)

        ours, baseline = interleaved(lambda: journals.verify(path, keys.public), signatures, rounds, 1)
    return Row("journal entries verified", VERIFIED / ours, VERIFIED / baseline, "per s", "Ed25519 verifications alone",
               "one signature, two hashes an entry", "≥ 1000/s", VERIFIED / ours >= 1000)  # fmt: skip


def _inbox(rounds: int) -> Row:
    """500 requests, 450 of them open, on the owner's side: all that the page is sent when the inbox is shown."""
    os.environ.setdefault("SYFT_LAB_ISOLATION", "L0")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        os.environ["SYFT_LAB_HOME"] = folder
        import syft_lab as lab
        from syft_lab.cell import Cell
        from syft_lab.kernel.registry import Analyst

        owner = lab.Owner.start("bench")
        try:
            table = pd.DataFrame({"age": np.arange(1000) % 90})
            owner.publish(table, "patients", privacy_unit="row", bounds={"age": (0, 110)}, budget=lab.Budget(3))
            code = "\n".join(f"a{i} = patients.age.mean() + {i}" for i in range(20))
            nothing = {
                "why": "",
                "log": "",
                "error": None,
                "seconds": 0.1,
                "peak": 0,
                "touched": {},
                "outputs": [],
                "grows": [],
            }
            for i in range(SHOWN):
                analyst = Analyst(f"analyst-{i % 10}", "analyst", ("patients",), owner.keys.public, "active")
                cell = Cell(code + f"\nm = {i}", (("patients", 1),), ("m",), {}, "to know")
                row = owner._desk.file(analyst, secrets.token_hex(16), canonical.dumps(cell.to_json()))
                owner._desk._shelf.note(row.request, "mock", nothing)
                owner._desk._shelf.note(row.request, "earlier", {"against": None, "diff": [], "near": [], "hints": []})
                if i % 10 == 0:
                    owner._desk.deny(row.request, "no")
            inbox = owner.inbox

            def opened() -> None:
                inbox._look()

            def listed() -> None:
                owner._journal.read("SELECT * FROM requests")

            ours, baseline = interleaved(opened, listed, 5 * rounds)
        finally:
            owner.stop()
            del os.environ["SYFT_LAB_HOME"]
    return Row("inbox with 500 requests, its view", ours * 1e3, baseline * 1e3, "ms", "reading 500 rows of SQLite",
               "1 000 small files, 500 JSON objects", "≤ 300 ms", ours <= 0.3)  # fmt: skip


def _old_journal(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        journal, keys = journal_with_terms(folder)
        _age(journal)
        journal.append("exported", {"analyst": None})  # signs the head over all of them
        journal.close()
        start = time.perf_counter()
        journal = Journal(Path(folder) / "journal.sqlite", keys)
        opening = time.perf_counter() - start
        ours, baseline = beside_sqlite(journal, folder, 500 * rounds, 20)
        start = time.perf_counter()
        for (data,) in journal._db.execute("SELECT entry FROM log ORDER BY seq"):
            merkle.leaf_hash(data)
        reading = time.perf_counter() - start
        journal.close()
    return [
        Row("a debit in a journal of 10⁶ entries", ours * 1e3, baseline * 1e3, "ms", "bare SQLite, synchronous=FULL",
            "one fsync, one Ed25519 signature, 20 hashes", "≤ 2 ms", ours <= 2e-3),
        Row("opening a journal of 10⁶ entries", opening, reading, "s", "reading, hashing", "300 MB hashed", "none", True),
    ]  # fmt: skip


def _age(journal: Journal) -> None:
    """A million entries in one transaction; heads in between are not signed, which opening does not look at."""
    db, tree = journal._db, journal._tree
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    db.execute("BEGIN")
    for seq in range(len(tree), OLD):
        said = {"seq": seq, "time": now, "kind": "exported", "nonce": f"{seq:032x}", "body": {"analyst": None}}
        data = canonical.dumps(said)
        tree.append(merkle.leaf_hash(data))
        db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", (seq, data, b"", now, b""))
    db.execute("COMMIT")
    journal._latest = now
