"""The journal: one signed append-only log, and its views, in one SQLite file with one writer.

Every entry is a leaf of a Merkle tree (`merkle`), with a random nonce so that a leaf can't be guessed from its hash.
An append writes the entry, the views that follow from it (`views`) and the newly signed head in one durable
transaction (WAL, synchronous=FULL): after a crash all of it is there, or none. Entries are never changed or removed.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from syft_lab import canonical, merkle
from syft_lab.errors import StateError, VerificationError
from syft_lab.identity import Keys, PublicKeys
from syft_lab.kernel import views
from syft_lab.receipt import LIMIT, Head

SCHEMA_VERSION = 1
_SCHEMA = """
    CREATE TABLE log (seq INTEGER PRIMARY KEY, entry BLOB NOT NULL, root BLOB NOT NULL, time TEXT NOT NULL,
                      signature BLOB NOT NULL) STRICT;
    CREATE TABLE stamp (views TEXT NOT NULL) STRICT;
    INSERT INTO stamp VALUES ('');
    CREATE TRIGGER no_update BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    CREATE TRIGGER no_delete BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
"""
# One entry a step: MIGRATIONS[n] brings a journal of version n to n + 1. The log's bytes never change.
MIGRATIONS: tuple[str, ...] = (_SCHEMA,)

Content = dict[str, Any]
PAGE, KEPT = 1000, 4096
QUICK = 5_000  # so many entries are folded again at each start, to compare


@dataclass(frozen=True)
class Entry:
    """One line of the log: its position, its exact bytes, and what they say."""

    seq: int
    data: bytes
    kind: str
    time: str
    body: Content

    @classmethod
    def parse(cls, seq: int, data: bytes) -> Entry:
        """The entry in its bytes; raises VerificationError where they are no entry at this position."""
        content = canonical.loads(data, limit=LIMIT)
        if not isinstance(content, dict) or content.get("seq") != seq or canonical.dumps(content) != data:
            raise VerificationError(f"entry {seq} of the journal is damaged")
        return cls(seq, data, content["kind"], content["time"], content["body"])


class _Reader:
    """A connection of one thread. Others only close it, and wait for a read that is going on: SQLite crashes otherwise."""

    def __init__(self, path: Path) -> None:
        self.thread = threading.current_thread()
        self._lock = threading.Lock()
        place = f"{path.resolve().as_uri()}?mode=ro"
        self._db = sqlite3.connect(place, uri=True, isolation_level=None, timeout=10, check_same_thread=False)

    def read(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self._db.close()


class Journal:
    """The journal in ``path``, written by the owner with ``keys``. Safe to use from several threads."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self._keys = keys
        self._lock = threading.RLock()
        self._writing = 0  # the thread that is in a transaction: it reads what it wrote
        self._path = path
        self._reading = threading.local()
        self._readers: list[_Reader] = []
        self._tree = merkle.Tree()
        self._closed = False
        self._latest = self._halted = ""
        self.entry = lru_cache(KEPT)(self._entry)  # an entry never changes, and reading it again would wait for the lock
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.on_append: list[Callable[[Entry], None]] = []  # called in order, under the lock; must not append
        try:
            self._db = _connect(path)
            _migrate(self._db)
            self._load(keys.public)
        except sqlite3.DatabaseError as error:
            raise StateError(f"{path.name} is damaged ({error}); restore the state folder from a backup") from None

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            self._closed = True
            for reader in self._readers:
                reader.close()
            self._readers.clear()
            self._db.close()  # last: then SQLite moves what its write-ahead log holds into the one file that people copy

    def __len__(self) -> int:
        return len(self._tree)

    def size_with(self, seq: int) -> int:
        """How many entries there are, that at ``seq`` among them: readers see it a moment before it is counted here."""
        if len(self._tree) <= seq:
            with self._lock:  # whoever is writing it holds this
                pass
        return len(self._tree)

    @property
    def head(self) -> Head:
        """The newest signed head."""
        return self.head_at(len(self._tree))

    def head_at(self, size: int) -> Head:
        """The head that was signed when the log had ``size`` entries."""
        row = self.read("SELECT root, time, signature FROM log WHERE seq = ?", size - 1)
        if not row:
            raise VerificationError(f"the journal has no head of size {size}")
        root, time, signature = row[0]
        return Head(size, root.hex(), time, signature.hex())

    def now(self) -> datetime:
        """The time, in UTC; never before that of the newest entry, so that a clock set back extends nothing."""
        now = self.clock().astimezone(UTC)
        return max(now, datetime.fromisoformat(self._latest)) if self._latest else now

    def append(self, kind: str, body: Content | Callable[[sqlite3.Connection], Content]) -> Entry:
        """Write one entry with its views and head, durably; ``body`` may be made inside the transaction.

        Whatever ``body`` or a view raises undoes all of it. Raises StateError if the disk does not take it, or after `halt`.
        """
        if self._halted:
            raise StateError(self._halted)
        with self._lock, self._transaction():
            seq = len(self._tree)
            content = body(self._db) if callable(body) else body
            now = self.now().isoformat(timespec="microseconds")
            said = {"seq": seq, "time": now, "kind": kind, "nonce": secrets.token_hex(16), "body": content}
            data = canonical.dumps(said)
            views.apply(self._db, seq, kind, content)
            leaf = merkle.leaf_hash(data)
            root = self._tree.root_with(leaf)
            signature = self._keys.sign("head", Head(seq + 1, root.hex(), now, "").signed_part())
            self._db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", (seq, data, root, now, signature))
            self._db.execute("COMMIT")
            self._tree.append(leaf)
            self._latest = now
            entry = Entry(seq, data, kind, now, content)
            for hear in self.on_append:
                hear(entry)
            return entry

    def halt(self, why: str) -> None:
        """Write nothing from now on: nothing is filed or released. For a journal that was found to be wrong."""
        self._halted = why

    def read(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a view; raises StateError once the journal is closed. Waits for no writer, and sees what was committed."""
        try:
            if self._writing == threading.get_ident():
                return self._db.execute(sql, values).fetchall()
            return self._reader().read(sql, values)
        except sqlite3.ProgrammingError:
            raise StateError("the owner is stopped; start it again: %owner start NAME") from None

    def _reader(self) -> _Reader:
        """A connection of this thread: readers that shared one would wait for each other, and for the interpreter's lock."""
        found: _Reader | None = getattr(self._reading, "reader", None)
        if found is None:
            with self._lock:
                if self._closed:
                    raise sqlite3.ProgrammingError
                gone = [r for r in self._readers if not r.thread.is_alive()]
                for reader in gone:
                    reader.close()
                found = self._reading.reader = _Reader(self._path)
                self._readers = [*(r for r in self._readers if r not in gone), found]
        return found

    def _entry(self, seq: int) -> Entry:
        """The entry at position ``seq`` (from 0). Read it, and leave it as it is."""
        return Entry.parse(seq, self.read("SELECT entry FROM log WHERE seq = ?", seq)[0][0])

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[Entry]:
        """All entries from ``start`` on (and before ``end``), oldest first; a page of them is in memory at a time."""
        end = len(self._tree) if end is None else min(end, len(self._tree))
        while start < end:
            rows = self.read(
                "SELECT seq, entry FROM log WHERE seq >= ? AND seq < ? ORDER BY seq", start, min(start + PAGE, end)
            )
            for seq, data in rows:
                yield Entry.parse(seq, data)
            start += PAGE

    def of_kinds(self, *kinds: str) -> Iterator[Entry]:
        """The entries of some kinds, oldest first, without parsing the others: an old journal has a million of them."""
        # In canonical JSON a quote inside a text is escaped, so that no text can look like this.
        where = " OR ".join("instr(entry, CAST(? AS BLOB))" for _ in kinds)
        needles = [f'"kind":"{kind}","nonce"' for kind in kinds]
        for seq, data in self.read(f"SELECT seq, entry FROM log WHERE {where} ORDER BY seq", *needles):
            entry = Entry.parse(seq, data)
            if entry.kind in kinds:
                yield entry

    def leaf(self, seq: int) -> bytes:
        """The leaf hash of entry ``seq``."""
        with self._lock:
            return self._tree.leaf(seq)

    def inclusion(self, seq: int, size: int) -> tuple[bytes, ...]:
        """Path from entry ``seq`` to the root of the first ``size`` entries."""
        with self._lock:
            return tuple(self._tree.inclusion(seq, size))

    def continuation(self, old: Head, size: int) -> tuple[bytes, ...] | None:
        """Proof that the log of ``size`` entries continues ``old``; None if it does not, or ``old`` isn't ours."""
        with self._lock:
            if not 0 < old.size <= size <= len(self._tree) or self._tree.root(old.size).hex() != old.root:
                return None
            return tuple(self._tree.consistency(old.size, size))

    def signed(self, head: Head) -> bool:
        """Whether this owner made ``head``, whatever became of its log."""
        return head.is_signed_by(self._keys.public)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._writing = threading.get_ident()
        except sqlite3.Error as error:
            raise StateError(f"the journal can't be written ({error}); nothing was released. Is the owner stopped?") from None
        try:
            yield
        except sqlite3.OperationalError as error:
            self._undo()
            raise StateError(f"the journal can't be written ({error}); nothing was released. Is the disk full?") from None
        except BaseException:
            self._undo()
            raise
        finally:
            self._writing = 0

    def _undo(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _load(self, keys: PublicKeys) -> None:
        for (data,) in self._db.execute("SELECT entry FROM log ORDER BY seq"):
            self._tree.append(merkle.leaf_hash(data))
        if len(self._tree):
            head = self.head
            self._latest = head.time
            if head.root != self._tree.root().hex() or not head.is_signed_by(keys):
                raise StateError("the journal does not match its last signed head; restore the state folder from a backup")
        stamp = views.stamp()
        known = self._db.execute("SELECT views FROM stamp").fetchone()[0] == stamp
        if known and (len(self._tree) > QUICK or self._follow()):
            return
        if known:
            warnings.warn(f"somebody changed {self._path.name} beside its log: budgets and requests are as the log has them",
                          stacklevel=3)  # fmt: skip
        with self._transaction():
            views.create(self._db)
            for entry in self.entries():
                views.apply(self._db, entry.seq, entry.kind, entry.body)
            self._db.execute("UPDATE stamp SET views = ?", (stamp,))
            self._db.execute("COMMIT")

    def _follow(self) -> bool:
        """Whether the views are what the entries make of them, and nobody changed them in the file."""
        fresh = sqlite3.connect(":memory:")
        try:
            views.create(fresh)
            for entry in self.entries():
                views.apply(fresh, entry.seq, entry.kind, entry.body)
            return all(_rows(self._db, name) == _rows(fresh, name) for name in views.TABLES)
        finally:
            fresh.close()


def verify(path: Path, keys: PublicKeys) -> Head:
    """Check a journal from first to last: bytes, hashes, signatures, and that its views follow from its log.

    Reads only; works on a copy or on the live file. Gives the newest head; raises VerificationError.
    """
    if not path.is_file():
        raise VerificationError(f"there is no journal {path.name}")
    live = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    fresh = sqlite3.connect(":memory:")
    try:
        live.execute("BEGIN")  # one snapshot, however the owner goes on
        views.create(fresh)
        head = _verify_log(live, fresh, keys)
        for name in views.TABLES:
            if _rows(live, name) != _rows(fresh, name):
                raise VerificationError(f"the view {name} does not follow from the journal's entries")
    except (sqlite3.DatabaseError, KeyError, TypeError, StateError) as error:
        raise VerificationError(f"the journal is damaged: {type(error).__name__}") from None
    finally:
        live.close()
        fresh.close()
    return head


def _verify_log(live: sqlite3.Connection, fresh: sqlite3.Connection, keys: PublicKeys) -> Head:
    tree, head = merkle.Tree(), None
    for expected, row in enumerate(live.execute("SELECT seq, entry, root, time, signature FROM log ORDER BY seq")):
        seq, data, root, time, signature = row
        if seq != expected:
            raise VerificationError(f"entry {expected} is missing from the journal")
        entry = Entry.parse(seq, data)
        tree.append(merkle.leaf_hash(data))
        head = Head(seq + 1, root.hex(), time, signature.hex())
        if tree.root() != root or entry.time != time or not head.is_signed_by(keys):
            raise VerificationError(f"entry {seq} of the journal does not match its signed head")
        views.apply(fresh, seq, entry.kind, entry.body)
    if head is None:
        raise VerificationError("the journal is empty")
    return head


def fold(entries: Iterable[Content]) -> None:
    """Check that entries, parsed and complete, make a consistent story: no budget overdrawn, no step left out.

    Raises VerificationError. What the entries say is checked, not that they are signed (`syft_lab.study` does that).
    """
    fresh = sqlite3.connect(":memory:")
    try:
        views.create(fresh)
        for entry in entries:
            views.apply(fresh, entry["seq"], entry["kind"], entry["body"])
    except (sqlite3.DatabaseError, KeyError, TypeError, StateError) as error:
        raise VerificationError(f"entry {entry['seq']} does not follow from those before it ({type(error).__name__})") from None
    finally:
        fresh.close()


def _rows(db: sqlite3.Connection, table: str) -> list[Any]:
    return sorted(db.execute(f"SELECT * FROM {table}").fetchall(), key=repr)


def _connect(path: Path) -> sqlite3.Connection:
    new = not path.exists()
    if new:
        path.touch(mode=0o600)
    db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        db.execute(f"PRAGMA {pragma}")
    return db


def _migrate(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StateError(f"this state folder was made by a newer Syft Lab (schema {version}, here {SCHEMA_VERSION}): upgrade")
    for step in range(version, SCHEMA_VERSION):
        db.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[step]} PRAGMA user_version = {step + 1}; COMMIT;")


def read_entries(path: Path) -> list[bytes]:
    """The exact bytes of all entries, oldest first; reads only."""
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        return [data for (data,) in db.execute("SELECT entry FROM log ORDER BY seq")]
    finally:
        db.close()
