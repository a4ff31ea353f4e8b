"""The journal: whole or not at all, signed, append-only, and its views follow from it."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

import syft_lab as lab
from syft_lab import canonical, errors, merkle
from syft_lab.errors import StateError, VerificationError
from syft_lab.identity import Keys
from syft_lab.kernel import journal as journals
from syft_lab.kernel import views
from syft_lab.kernel.journal import Journal, verify


@pytest.fixture
def keys():
    return Keys.generate()


@pytest.fixture
def journal(tmp_path, keys):
    made = Journal(tmp_path / "journal.sqlite", keys)
    made.append("opened", {"owner": "o"})
    yield made
    made.close()


def publish(journal, population="p", epsilon=1_000_000):
    journal.append(
        "published",
        {"dataset": "d", "version": 1, "population": population, "meta": {}, "new_population": {"epsilon_micro": epsilon, "delta_pico": 0}},
    )  # fmt: skip


def test_entries_come_back_in_order_and_heads_are_signed(journal, keys, tmp_path):
    for i in range(5):
        journal.append("opened", {"i": i})
    assert [e.body.get("i") for e in journal.entries()] == [None, 0, 1, 2, 3, 4]
    assert journal.head.is_signed_by(keys.public)
    assert journal.head.size == 6
    assert verify(tmp_path / "journal.sqlite", keys.public) == journal.head


def test_two_equal_bodies_have_different_leaves(journal):
    a, b = journal.append("opened", {"x": 1}), journal.append("opened", {"x": 1})
    strip = lambda e: {k: v for k, v in canonical.loads(e.data).items() if k == "nonce"}  # noqa: E731
    assert strip(a) != strip(b)


def test_what_is_acknowledged_is_there_after_opening_again(journal, keys, tmp_path):
    publish(journal)
    head = journal.head
    journal.close()
    again = Journal(tmp_path / "journal.sqlite", keys)
    assert again.head == head
    assert again.read("SELECT name FROM populations") == [("p",)]
    again.close()


def test_a_body_that_raises_leaves_no_trace(journal, tmp_path, keys):
    head = journal.head

    def body(db):
        db.execute("INSERT INTO settings VALUES ('x', 'y')")
        raise KeyError("no")

    with pytest.raises(KeyError):
        journal.append("opened", body)
    assert journal.head == head
    assert journal.read("SELECT * FROM settings") == []
    journal.append("opened", {})
    verify(tmp_path / "journal.sqlite", keys.public)


def test_a_view_that_forbids_leaves_no_trace(journal):
    publish(journal)
    with pytest.raises(sqlite3.IntegrityError):
        publish(journal)
    assert len(journal) == 2


def test_an_unknown_kind_is_not_written(journal):
    with pytest.raises(StateError, match="newer"):
        journal.append("teleported", {})
    assert len(journal) == 1


@pytest.mark.parametrize("sql", ["UPDATE log SET entry = x'00'", "DELETE FROM log"])
def test_the_log_is_append_only_for_sql_too(journal, sql):
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        journal._db.execute(sql)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        journal.read(sql)  # and what reads can't write at all


def tamper(path, *statements):
    db = sqlite3.connect(path)
    db.executescript("DROP TRIGGER no_update; DROP TRIGGER no_delete;" + ";".join(statements))
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET entry = CAST(replace(CAST(entry AS TEXT), '\"i\":1', '\"i\":9') AS BLOB) WHERE seq = 3",
        "DELETE FROM log WHERE seq = 2",
        "DELETE FROM log",
        "UPDATE log SET signature = x'00' WHERE seq = 1",
        "UPDATE log SET root = zeroblob(32) WHERE seq = 4",
        "UPDATE log SET time = '2001-01-01' WHERE seq = 4",
        "UPDATE populations SET epsilon_spent = 5",
        "UPDATE populations SET epsilon_cap = 9000000",
        "INSERT INTO accounts (analyst, population, epsilon_cap, delta_cap) VALUES ('eve', 'p', 1, 0)",
        "INSERT INTO rules VALUES (1, '{}')",
    ],
)
def test_every_change_behind_our_back_is_found(journal, keys, tmp_path, statement):
    publish(journal)
    for i in range(4):
        journal.append("opened", {"i": i})
    journal.close()
    path = tmp_path / "journal.sqlite"
    verify(path, keys.public)
    tamper(path, statement)
    with pytest.raises(VerificationError):
        verify(path, keys.public)


def test_a_journal_of_another_owner_is_found_out(journal, tmp_path):
    with pytest.raises(VerificationError, match="signed head"):
        verify(tmp_path / "journal.sqlite", Keys.generate().public)
    journal.close()
    with pytest.raises(StateError, match="signed head"):
        Journal(tmp_path / "journal.sqlite", Keys.generate())


def test_a_missing_journal_is_found_out(tmp_path, keys):
    with pytest.raises(VerificationError, match="no journal"):
        verify(tmp_path / "none.sqlite", keys.public)


def test_views_of_another_version_are_folded_anew(journal, keys, tmp_path, monkeypatch):
    publish(journal)
    journal.close()
    monkeypatch.setattr(views, "stamp", lambda: "another")
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    db.execute("DROP TABLE populations")
    db.commit()
    db.close()
    again = Journal(tmp_path / "journal.sqlite", keys)
    assert again.read("SELECT name, epsilon_cap FROM populations") == [("p", 1_000_000)]
    again.close()


def test_a_mended_rule_folds_the_views_anew_and_the_journal_verifies(journal, keys, tmp_path, monkeypatch):
    journal.append("role", {"role": "steward", "rights": ["read"]})
    journal.close()
    mended = {**views._CHANGES, "role": lambda db, seq, body: db.execute("INSERT INTO roles VALUES (?, '[]')", (body["role"],))}
    monkeypatch.setattr(views, "_CHANGES", mended)
    again = Journal(tmp_path / "journal.sqlite", keys)
    assert again.read("SELECT name, rights FROM roles WHERE name = 'steward'") == [("steward", "[]")]
    again.close()
    verify(tmp_path / "journal.sqlite", keys.public)


def test_the_stamp_covers_helpers_and_settings_of_rules_and_is_the_same_in_each_process(monkeypatch):
    stamp = views.stamp()
    code = "from syft_lab.kernel import views; print(views.stamp())"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.stdout.strip() == stamp
    monkeypatch.setattr(views, "_text", lambda value: "")  # a helper of several rules
    views._text.__module__ = views.__name__
    assert views.stamp() != stamp
    monkeypatch.undo()
    monkeypatch.setattr(views, "_CHANGES", {**views._CHANGES, "capped": views._setting("another")})
    assert views.stamp() != stamp


def test_an_older_schema_is_brought_up_to_date(keys, tmp_path, monkeypatch):
    path = tmp_path / "journal.sqlite"
    old = Journal(path, keys)
    old.append("opened", {})
    old.close()
    step = "CREATE TABLE more (x INTEGER) STRICT;"
    monkeypatch.setattr(journals, "MIGRATIONS", (*journals.MIGRATIONS, step))
    monkeypatch.setattr(journals, "SCHEMA_VERSION", 2)
    again = Journal(path, keys)
    assert again.read("SELECT count(*) FROM more") == [(0,)]
    assert len(again) == 1
    again.close()


def test_a_newer_schema_is_refused(journal, keys, tmp_path):
    journal.close()
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateError, match="newer Syft Lab"):
        Journal(tmp_path / "journal.sqlite", keys)


def test_a_file_that_is_no_journal_is_one_error(tmp_path, keys):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StateError, match="damaged"):
        Journal(path, keys)


@given(st.data())
def test_proofs_from_the_journal_verify(tmp_path_factory, data):
    keys = Keys.generate()
    journal = Journal(tmp_path_factory.mktemp("j") / "journal.sqlite", keys)
    size = data.draw(st.integers(1, 12))
    for i in range(size):
        journal.append("opened", {"i": i})
    seq = data.draw(st.integers(0, size - 1))
    old = journal.head_at(data.draw(st.integers(1, size)))
    proof = journal.continuation(old, size)
    assert journal.head.continues(old, list(proof))
    root = bytes.fromhex(journal.head.root)
    assert merkle.verify_inclusion(merkle.leaf_hash(journal.entry(seq).data), seq, size, journal.inclusion(seq, size), root)
    journal.close()


def test_a_head_of_a_rolled_back_journal_has_no_continuation(journal, keys, tmp_path):
    journal.append("opened", {"i": 1})
    copy = tmp_path / "copy.sqlite"
    journal.close()
    shutil.copy(tmp_path / "journal.sqlite", copy)
    ahead = Journal(tmp_path / "journal.sqlite", keys)
    ahead.append("opened", {"i": 2})
    head = ahead.head
    ahead.close()
    old = Journal(copy, keys)
    assert old.continuation(head, len(old)) is None
    old.append("opened", {"i": "another"})
    assert old.continuation(head, len(old)) is None
    assert old.signed(head)
    old.close()


def test_entries_of_a_kind_are_those_and_no_text_can_pass_for_one(journal):
    for body in (
        {},
        {"text": '"kind":"restored","nonce"'},
        {"text": '\\"kind\\":\\"restored\\",\\"nonce\\"'},
        {'"kind":"restored","nonce"': 1},
    ):
        journal.append("exported", body)
    journal.append("opened", {})
    assert [e.kind for e in journal.of_kinds("restored")] == []
    assert [e.kind for e in journal.of_kinds("opened", "exported")] == [
        e.kind for e in journal.entries() if e.kind in ("opened", "exported")
    ]


def test_connections_of_threads_that_ended_are_closed(journal):
    import threading

    for _ in range(20):
        thread = threading.Thread(target=journal.read, args=("SELECT 1",))
        thread.start()
        thread.join()
    journal.read("SELECT 1")
    assert len(journal._readers) <= 2


def test_a_stopped_journal_is_one_whole_file(tmp_path, keys):
    """People copy that file alone; a reader that was still open would have left the newest entries beside it."""
    import shutil

    journal = Journal(tmp_path / "journal.sqlite", keys)
    journal.append("opened", {})
    assert journal.read("SELECT count(*) FROM log") == [(1,)]
    journal.close()
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "journal.sqlite", tmp_path / "copy")
    assert verify(tmp_path / "copy" / "journal.sqlite", keys.public).size == 1


CLOSED_WHILE_READ = """
import sys, threading, pathlib, time
from syft_lab.errors import StateError
from syft_lab.identity import Keys
from syft_lab.kernel.journal import Journal
for i in range(30):
    journal = Journal(pathlib.Path(sys.argv[1]) / f"{i}.sqlite", Keys.generate())
    for _ in range(20):
        journal.append("opened", {"text": "x" * 2000})
    begun = threading.Barrier(5)
    def read():
        begun.wait()
        try:
            while True:
                journal.read("SELECT * FROM log")
        except StateError:
            pass
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    time.sleep(i / 3000)
    journal.close()
    for thread in threads:
        thread.join()
print("alive")
"""


def test_a_journal_that_is_closed_while_others_read_it_refuses_them_and_does_not_crash(tmp_path):
    ran = subprocess.run([sys.executable, "-c", CLOSED_WHILE_READ, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout.strip()) == (0, "alive"), ran.stderr[-2000:]


def test_an_entry_that_readers_see_already_is_counted_before_it_is_proved(journal, keys, monkeypatch):
    """Between its commit and the writer's own count."""
    committed, go_on, tree = threading.Event(), threading.Event(), journal._tree

    class Slow:
        def append(self, leaf):
            committed.set()
            assert go_on.wait(20)
            tree.append(leaf)

        def __len__(self):
            return len(tree)

        def __getattr__(self, name):
            return getattr(tree, name)

    assert journal.read("SELECT max(seq) FROM log") == [(0,)]  # this thread has a reader
    monkeypatch.setattr(journal, "_tree", Slow())
    with ThreadPoolExecutor(2) as pool:
        written = pool.submit(journal.append, "opened", {"owner": "o"})
        assert committed.wait(20)
        assert journal.read("SELECT max(seq) FROM log") == [(1,)]
        counted = pool.submit(journal.size_with, 1)
        assert not counted.done()
        go_on.set()
        entry, size = written.result(20), counted.result(20)
    assert size == 2
    assert merkle.verify_inclusion(
        merkle.leaf_hash(entry.data), 1, size, journal.inclusion(1, size), bytes.fromhex(journal.head_at(size).root)
    )


@pytest.mark.parametrize("quick", [5_000, 0])
def test_views_that_were_changed_in_the_file_are_folded_anew_or_nothing_is_written(home, patients, terms, quick, monkeypatch):
    """A spent budget is set back: at the next start the log decides; where the log is long, what is found later ends all writing."""
    running = lab.Owner.start("hospital-a")
    running.publish(patients, name="patients", budget=lab.Budget(1.0), **terms)
    running.invite("alice", budgets={"clinic": 1.0})
    running.policy.allow("dp", dataset="patients", epsilon_per_query=1)
    with lab.connect("alice.syft") as session:
        session["patients"].count().release(epsilon=1.0).get()
    running.stop()
    with contextlib.closing(sqlite3.connect(home / "state" / "owners" / "hospital-a" / "journal.sqlite")) as file:
        for view in ("populations", "accounts"):
            file.execute(f"UPDATE {view} SET epsilon_spent = 0")
        file.commit()
    monkeypatch.setattr("syft_lab.kernel.journal.QUICK", quick)
    with pytest.warns(UserWarning, match="beside its log") if quick else contextlib.nullcontext():
        again = lab.Owner.start("hospital-a")
    try:
        if not quick:
            for thread in threading.enumerate():
                if thread.name == "syft-verify":
                    thread.join(60)
        with (
            lab.connect("hospital-a") as session,
            pytest.raises(errors.LabError, match="does not verify" if not quick else "ε = 0 is left"),
        ):
            session["patients"].age.sum().release(epsilon=1.0).get()
    finally:
        again.stop()
