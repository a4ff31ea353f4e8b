"""What the journal's entries mean: tables that are a fold over the log, and nothing else.

`apply` is the only code that changes a view. The journal calls it in the transaction that appends the entry; the
audit calls it again for every entry on an empty database, and compares. A view is never migrated: when the tables or
the code of a rule change (`stamp`), the views are dropped and folded anew.

Amounts are integers: ε in 1e-6, δ in 1e-12 (`budget.accountant`). The CHECKs hold even if the code above them errs.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from types import CodeType, FunctionType
from typing import Any

from syft_lab import canonical
from syft_lab.errors import StateError

# What a debit protects against: tables adding or removing a person, tensors replacing one. While an account has debits of
# one kind only, its ε are added; once it has both, all of it is counted as replacing.
ADD_REMOVE, REPLACE = "add or remove", "replace"
_ACCOUNT = """
    epsilon_cap INTEGER NOT NULL, delta_cap INTEGER NOT NULL, relation TEXT NOT NULL DEFAULT '',
    epsilon_spent INTEGER NOT NULL DEFAULT 0, delta_spent INTEGER NOT NULL DEFAULT 0,
    epsilon_reserved INTEGER NOT NULL DEFAULT 0 CHECK (epsilon_reserved >= 0),
    delta_reserved INTEGER NOT NULL DEFAULT 0 CHECK (delta_reserved >= 0),
    CHECK (epsilon_spent >= 0 AND epsilon_spent + epsilon_reserved <= epsilon_cap),
    CHECK (delta_spent >= 0 AND delta_spent + delta_reserved <= delta_cap)
"""
TABLES = {
    "populations": f"(name TEXT PRIMARY KEY, merged_into TEXT, {_ACCOUNT})",
    "accounts": f"(analyst TEXT, population TEXT, {_ACCOUNT}, PRIMARY KEY (analyst, population))",
    "datasets": "(name TEXT, version INTEGER, population TEXT NOT NULL, meta TEXT NOT NULL,"
    " withdrawn INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, version))",
    "invitations": "(id TEXT PRIMARY KEY, analyst TEXT NOT NULL, role TEXT NOT NULL, datasets TEXT NOT NULL,"
    " expires TEXT NOT NULL, state TEXT NOT NULL, curve TEXT)",
    "analysts": "(curve TEXT PRIMARY KEY, name TEXT NOT NULL, signing TEXT NOT NULL, role TEXT NOT NULL,"
    " datasets TEXT NOT NULL, state TEXT NOT NULL)",
    "rules": "(id INTEGER PRIMARY KEY, rule TEXT NOT NULL)",
    "queries": "(request TEXT PRIMARY KEY, analyst TEXT NOT NULL, dataset TEXT NOT NULL, version INTEGER NOT NULL,"
    " population TEXT NOT NULL, digest TEXT NOT NULL, epsilon INTEGER NOT NULL CHECK (epsilon > 0),"
    " delta INTEGER NOT NULL CHECK (delta >= 0), relation TEXT NOT NULL,"
    " state TEXT NOT NULL, entry INTEGER NOT NULL)",
    "requests": "(request TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, analyst TEXT NOT NULL, digest TEXT NOT NULL,"
    " template TEXT NOT NULL, state TEXT NOT NULL, needed INTEGER NOT NULL, follows INTEGER, filed INTEGER NOT NULL,"
    " moved INTEGER NOT NULL, entry INTEGER NOT NULL, comments INTEGER NOT NULL DEFAULT 0, ran INTEGER, left INTEGER,"
    " explained INTEGER, rule INTEGER,"
    " review INTEGER NOT NULL DEFAULT 1, why TEXT NOT NULL DEFAULT '')",
    "endorsements": "(request TEXT, by TEXT, entry INTEGER NOT NULL, PRIMARY KEY (request, by))",
    "comments": "(entry INTEGER PRIMARY KEY, request TEXT NOT NULL)",
    "roles": "(name TEXT PRIMARY KEY, rights TEXT NOT NULL)",
    "exact": "(analyst TEXT, population TEXT, count INTEGER NOT NULL, PRIMARY KEY (analyst, population))",
    "settings": "(name TEXT PRIMARY KEY, value TEXT NOT NULL)",
}
INDEXES = (
    "CREATE INDEX questions ON queries (analyst, dataset, version, digest, epsilon, delta)",
    "CREATE INDEX requests_by_analyst ON requests (analyst, entry)",
    "CREATE INDEX requests_by_state ON requests (state)",
    "CREATE INDEX comments_by_request ON comments (request)",
    "CREATE UNIQUE INDEX one_active_key ON analysts (name) WHERE state = 'active'",
)

Body = Mapping[str, Any]


def stamp() -> str:
    """What the views were made by: a hash of the tables and of the code of all rules, with what these call here."""
    modules = (__name__, canonical.__name__)
    functions = {f"{m}.{f.__name__}": f for m in modules for f in vars(sys.modules[m]).values()
                 if isinstance(f, FunctionType) and f.__module__ == m}  # fmt: skip
    functions.update({f"of {kind}": change for kind, change in _CHANGES.items() if isinstance(change, FunctionType)})
    written = [(name, _plain([f])) for name, f in sorted(functions.items())]
    constants = [(name, _plain([value])) for name, value in sorted(globals().items())
                 if name.isupper() and isinstance(value, str | int | tuple | frozenset | dict)]  # fmt: skip
    return sha256(repr((constants, written)).encode()).hexdigest()


def _plain(values: Iterable[Any]) -> list[str]:
    """Functions and constants as text that is the same in each process, wherever they stand in their file."""

    def plain(value: Any) -> str:
        if isinstance(value, FunctionType):
            bound = [c.cell_contents for c in value.__closure__ or ()]
            return repr(
                [plain(value.__code__), *map(plain, (value.__defaults__, *bound, *(value.__kwdefaults__ or {}).items()))]
            )
        if isinstance(value, CodeType):
            return repr((value.co_code, value.co_names, value.co_varnames, _plain(value.co_consts)))
        if isinstance(value, frozenset):
            return repr(sorted(map(plain, value)))
        if isinstance(value, tuple | dict):
            return repr([plain(v) for v in (value.items() if isinstance(value, dict) else value)])
        return repr(value) if value is None or isinstance(value, str | bytes | int | float) else type(value).__name__

    return [plain(value) for value in values]


def create(db: sqlite3.Connection) -> None:
    """Make all views, empty; drops those of another version of this code."""
    for name, columns in TABLES.items():
        db.execute(f"DROP TABLE IF EXISTS {name}")
        db.execute(f"CREATE TABLE {name} {columns} STRICT")
    for index in INDEXES:
        db.execute(index)


def apply(db: sqlite3.Connection, seq: int, kind: str, body: Body) -> None:
    """Fold one entry into the views; raises sqlite3.IntegrityError where a CHECK forbids it."""
    change = _CHANGES.get(kind)
    if change is None:
        raise StateError(f"the journal holds an entry of kind {ascii(kind)[:40]}; a newer Syft Lab wrote it: upgrade")
    change(db, seq, body)


def _text(value: Any) -> str:
    return canonical.dumps(value).decode()


def _nothing(db: sqlite3.Connection, seq: int, body: Body) -> None:
    """An entry that is a record only."""


def _published(db: sqlite3.Connection, seq: int, body: Body) -> None:
    budget = body["new_population"]
    if budget is not None:
        db.execute(
            "INSERT INTO populations (name, epsilon_cap, delta_cap) VALUES (?, ?, ?)",
            (body["population"], budget["epsilon_micro"], budget["delta_pico"]),
        )
    db.execute(
        "INSERT INTO datasets (name, version, population, meta) VALUES (?, ?, ?, ?)",
        (body["dataset"], body["version"], body["population"], _text(body["meta"])),
    )


def _withdrawn(db: sqlite3.Connection, seq: int, body: Body) -> None:
    db.execute("UPDATE datasets SET withdrawn = 1 WHERE name = ? AND version = ?", (body["dataset"], body["version"]))


def _topped_up(db: sqlite3.Connection, seq: int, body: Body) -> None:
    amounts = (body["epsilon_micro"], body["delta_pico"], body["population"])
    add = "SET epsilon_cap = epsilon_cap + ?, delta_cap = delta_cap + ?"
    if body["analyst"] is None:
        db.execute(f"UPDATE populations {add} WHERE name = ?", amounts)
    else:
        db.execute(
            "INSERT OR IGNORE INTO accounts (analyst, population, epsilon_cap, delta_cap) VALUES (?, ?, 0, 0)",
            (body["analyst"], body["population"]),
        )
        db.execute(f"UPDATE accounts {add} WHERE population = ? AND analyst = ?", (*amounts, body["analyst"]))


def _invited(db: sqlite3.Connection, seq: int, body: Body) -> None:
    db.execute(
        "INSERT INTO invitations (id, analyst, role, datasets, expires, state) VALUES (?, ?, ?, ?, ?, 'open')",
        (body["invitation"], body["analyst"], body["role"], _text(body["datasets"]), body["expires"]),
    )
    for population, cap in body["budgets"].items():
        # A second invitation raises a cap, and never gives back what was spent.
        db.execute(
            "INSERT INTO accounts (analyst, population, epsilon_cap, delta_cap) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (analyst, population) DO UPDATE SET"
            " epsilon_cap = max(epsilon_cap, excluded.epsilon_cap), delta_cap = max(delta_cap, excluded.delta_cap)",
            (body["analyst"], population, cap["epsilon_micro"], cap["delta_pico"]),
        )


def _enrolled(db: sqlite3.Connection, seq: int, body: Body) -> None:
    name = body["analyst"]
    db.execute("UPDATE analysts SET state = 'replaced' WHERE name = ? AND state = 'active'", (name,))
    db.execute(
        "INSERT INTO analysts (curve, name, signing, role, datasets, state)"
        " SELECT ?, analyst, ?, role, datasets, 'active' FROM invitations WHERE id = ?",
        (body["curve"], body["signing"], body["invitation"]),
    )
    db.execute(
        "UPDATE invitations SET state = 'used', curve = ? WHERE id = ?", (body["curve"], body["invitation"])
    )  # fmt: skip


def _rotated(db: sqlite3.Connection, seq: int, body: Body) -> None:
    db.execute("UPDATE analysts SET state = 'replaced' WHERE curve = ?", (body["old_curve"],))
    db.execute(
        "INSERT INTO analysts (curve, name, signing, role, datasets, state)"
        " SELECT ?, name, ?, role, datasets, 'active' FROM analysts WHERE curve = ?",
        (body["curve"], body["signing"], body["old_curve"]),
    )


def _revoked(db: sqlite3.Connection, seq: int, body: Body) -> None:
    db.execute("UPDATE analysts SET state = 'revoked' WHERE name = ? AND state = 'active'", (body["analyst"],))
    db.execute("UPDATE invitations SET state = 'revoked' WHERE analyst = ? AND state = 'open'", (body["analyst"],))


def _allowed(db: sqlite3.Connection, seq: int, body: Body) -> None:
    db.execute("INSERT INTO rules (id, rule) VALUES (?, ?)", (body["rule"], _text(body["terms"])))


def _disallowed(db: sqlite3.Connection, seq: int, body: Body) -> None:
    db.execute("DELETE FROM rules WHERE id = ?", (body["rule"],))


def _reserved(db: sqlite3.Connection, seq: int, body: Body) -> None:
    relation = body.get("relation", ADD_REMOVE)
    names = ("request", "analyst", "dataset", "version", "population", "digest")
    db.execute(
        "INSERT INTO queries (request, analyst, dataset, version, population, digest, epsilon, delta, relation, state, entry)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'reserved', ?)",
        (*(body[n] for n in names), body["epsilon_micro"], body["delta_pico"], relation, seq),
    )
    for table, where, key in _both_accounts(body["analyst"], body["population"]):
        by = _relate(db, table, where, key, relation)
        changed = db.execute(
            f"UPDATE {table} SET epsilon_reserved = epsilon_reserved + ?, delta_reserved = delta_reserved + ? WHERE {where}",
            (by * body["epsilon_micro"], by * body["delta_pico"], *key),
        ).rowcount
        if changed != 1:
            raise sqlite3.IntegrityError(f"no account in {table}")


def weight(held: str, relation: str) -> int:
    """How often a cost counts in an account that has debits of both kinds: by group privacy, adding or removing a person at ε
    is replacing one at 2ε."""  # noqa: D209
    return 2 if held == REPLACE and relation != REPLACE else 1


def _relate(db: sqlite3.Connection, table: str, where: str, key: tuple[str, ...], relation: str) -> int:
    """Note that an account has debits of this kind; what it has of adding or removing counts twice from its first of
    replacing on. Gives the weight of a cost."""  # noqa: D209
    held = db.execute(f"SELECT relation FROM {table} WHERE {where}", key).fetchone()
    if held is None:
        return 1
    if relation == REPLACE and held[0] == ADD_REMOVE:
        double = ", ".join(f"{c} = 2 * {c}" for c in ("epsilon_spent", "delta_spent", "epsilon_reserved", "delta_reserved"))
        db.execute(f"UPDATE {table} SET {double} WHERE {where}", key)
    if not held[0] or relation == REPLACE:
        db.execute(f"UPDATE {table} SET relation = ? WHERE {where}", (relation, *key))
    return weight(held[0], relation)


def _settle(state: str) -> Callable[[sqlite3.Connection, int, Body], None]:
    """A reservation ends: whatever came of it, its cost is spent."""

    def settle(db: sqlite3.Connection, seq: int, body: Body) -> None:
        row = db.execute(
            "UPDATE queries SET state = ?, entry = ? WHERE request = ? AND state = 'reserved'"
            " RETURNING analyst, population, epsilon, delta, relation",
            (state, seq, body["request"]),
        ).fetchone()
        if row is None:
            raise sqlite3.IntegrityError("no such reservation")
        analyst, population, epsilon, delta, relation = row
        for table, where, key in _both_accounts(analyst, population):
            by = _relate(db, table, where, key, relation)
            db.execute(
                f"UPDATE {table} SET epsilon_reserved = epsilon_reserved - ?, delta_reserved = delta_reserved - ?,"
                f" epsilon_spent = epsilon_spent + ?, delta_spent = delta_spent + ? WHERE {where}",
                (by * epsilon, by * delta, by * epsilon, by * delta, *key),
            )

    return settle


def _both_accounts(analyst: str, population: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        ("populations", "name = ?", (population,)),
        ("accounts", "analyst = ? AND population = ?", (analyst, population)),
    ]


def _suspended(db: sqlite3.Connection, seq: int, body: Body) -> None:
    db.execute("INSERT OR REPLACE INTO settings VALUES ('suspended', ?)", (str(seq),))


def _restored(db: sqlite3.Connection, seq: int, body: Body) -> None:
    db.execute("DELETE FROM settings WHERE name = 'suspended'")
    for population, lost in body["lost"].items():
        db.execute(
            "UPDATE populations SET epsilon_spent = epsilon_spent + ?, delta_spent = delta_spent + ? WHERE name = ?",
            (lost["epsilon_micro"], lost["delta_pico"], population),
        )


def _merged(db: sqlite3.Connection, seq: int, body: Body) -> None:
    """Two populations turn out to be the same people: what was spent on either is spent, and the smaller cap holds.

    A cap is never below what was spent, so an overspent merger leaves nothing.
    """
    old, new = body["population"], body["into"]
    _alike(db, "populations", "name = ?", (old,), (new,))
    for (analyst,) in db.execute("SELECT analyst FROM accounts WHERE population = ?", (old,)).fetchall():
        _alike(db, "accounts", "analyst = ? AND population = ?", (analyst, old), (analyst, new))
    ((cap_e, cap_d),) = db.execute("SELECT epsilon_cap, delta_cap FROM populations WHERE name = ?", (old,)).fetchall()
    _join(db, "populations", "name = ?", (new,), db.execute(
        "SELECT epsilon_spent, delta_spent FROM populations WHERE name = ?", (old,)).fetchone(), (cap_e, cap_d))  # fmt: skip
    rows = db.execute("SELECT analyst, epsilon_spent, delta_spent, epsilon_cap, delta_cap FROM accounts WHERE population = ?",
                      (old,)).fetchall()  # fmt: skip
    for analyst, *amounts in rows:
        db.execute(
            "INSERT OR IGNORE INTO accounts (analyst, population, epsilon_cap, delta_cap) VALUES (?, ?, ?, ?)",
            (analyst, new, *amounts[2:]),
        )
        _join(db, "accounts", "analyst = ? AND population = ?", (analyst, new), amounts[:2], amounts[2:])
    db.execute("DELETE FROM accounts WHERE population = ?", (old,))
    db.execute("UPDATE populations SET merged_into = ? WHERE name = ? OR merged_into = ?", (new, old, old))
    for table in ("datasets", "queries"):
        db.execute(f"UPDATE {table} SET population = ? WHERE population = ?", (new, old))
    db.execute(
        "INSERT INTO exact (analyst, population, count) SELECT analyst, ?, count FROM exact WHERE population = ?"
        " ON CONFLICT (analyst, population) DO UPDATE SET count = count + excluded.count",
        (new, old),
    )
    db.execute("DELETE FROM exact WHERE population = ?", (old,))


def _alike(db: sqlite3.Connection, table: str, where: str, one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Two accounts that become one: where either has debits of replacing, both are counted so. Caps give way, for now."""
    held = {key: db.execute(f"SELECT relation FROM {table} WHERE {where}", key).fetchone() for key in (one, other)}
    if REPLACE in {h[0] for h in held.values() if h}:
        for key, found in held.items():
            if found and found[0] == ADD_REMOVE:
                grow = "epsilon_cap = max(epsilon_cap, 2 * epsilon_spent), delta_cap = max(delta_cap, 2 * delta_spent)"
                db.execute(f"UPDATE {table} SET {grow} WHERE {where}", key)
                _relate(db, table, where, key, REPLACE)
    told = next((h[0] for h in held.values() if h and h[0] == REPLACE), None)
    if told:
        db.execute(f"UPDATE {table} SET relation = ? WHERE {where}", (told, *other))


def _join(
    db: sqlite3.Connection, table: str, where: str, key: tuple[str, ...], spent: Sequence[int], cap: Sequence[int]
) -> None:
    for unit, more, other in (("epsilon", spent[0], cap[0]), ("delta", spent[1], cap[1])):
        db.execute(
            f"UPDATE {table} SET {unit}_cap = max(min({unit}_cap, ?), {unit}_spent + {unit}_reserved + ?),"
            f" {unit}_spent = {unit}_spent + ? WHERE {where}",
            (other, more, more, *key),
        )


def _setting(name: str) -> Callable[[sqlite3.Connection, int, Body], None]:
    """The newest entry of its kind holds; with "role", one a role."""

    def keep(db: sqlite3.Connection, seq: int, body: Body) -> None:
        key = f"{name}:{body['role']}" if "role" in body else name
        db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, _text(body)))

    return keep


def _role(db: sqlite3.Connection, seq: int, body: Body) -> None:
    db.execute("INSERT OR REPLACE INTO roles VALUES (?, ?)", (body["role"], _text(body["rights"])))


def _filed(db: sqlite3.Connection, seq: int, body: Body) -> None:
    names = ("request", "number", "analyst", "digest")
    db.execute(
        "INSERT INTO requests (request, number, analyst, digest, template, needed, follows, state, filed, moved, entry)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 'filed', ?, ?, ?)",
        (*(body[n] for n in names), body.get("template", ""), body.get("needed", 1), body.get("follows"), seq, seq, seq),
    )


def _move(state: str, *before: str) -> Callable[[sqlite3.Connection, int, Body], None]:
    """A request goes on to ``state``, from one of ``before`` only: nothing runs twice, nothing leaves undecided."""

    def move(db: sqlite3.Connection, seq: int, body: Body) -> None:
        places = ", ".join("?" for _ in before)
        changed = db.execute(
            f"UPDATE requests SET state = ?, moved = ?, entry = ?, why = ? WHERE request = ? AND state IN ({places})",
            (state, seq, seq, body.get("why", ""), body["request"], *before),
        ).rowcount
        if changed != 1:
            raise sqlite3.IntegrityError(f"the request is not in a state before {state}")
        if state in ("partly", "approved", "joined"):
            _endorse(db, seq, body, state)
        elif state == "review":
            db.execute("UPDATE requests SET ran = ? WHERE request = ?", (seq, body["request"]))
        elif state == "released":
            db.execute("UPDATE requests SET left = ? WHERE request = ?", (seq, body["request"]))
            _count_exact(db, body)

    return move


def _endorse(db: sqlite3.Connection, seq: int, body: Body, state: str) -> None:
    """One person, or rule, once; never the one who asks; and unless it stays ``partly``, as many agreed as are needed."""
    db.execute("INSERT INTO endorsements VALUES (?, ?, ?)", (body["request"], body["by"], seq))
    analyst, needed, count = db.execute(
        "SELECT analyst, needed, (SELECT count(*) FROM endorsements WHERE endorsements.request = requests.request)"
        " FROM requests WHERE request = ?",
        (body["request"],),
    ).fetchone()
    if body["by"] == analyst:
        raise sqlite3.IntegrityError("nobody approves their own request")
    if (count >= needed) != (state != "partly"):
        raise sqlite3.IntegrityError(f"{count} of {needed} approvals")
    db.execute(
        "UPDATE requests SET rule = coalesce(?, rule), review = max(?, CASE WHEN ? > 1 THEN review ELSE 0 END)"
        " WHERE request = ?",
        (body["rule"], int(body["review"]), count, body["request"]),
    )


def _count_exact(db: sqlite3.Connection, body: Body) -> None:
    for population in body["populations"]:
        merged = db.execute("SELECT merged_into FROM populations WHERE name = ?", (population,)).fetchone()
        db.execute(
            "INSERT INTO exact (analyst, population, count) VALUES (?, ?, 1)"
            " ON CONFLICT (analyst, population) DO UPDATE SET count = count + 1",
            (body["analyst"], (merged and merged[0]) or population),
        )


def _commented(db: sqlite3.Connection, seq: int, body: Body) -> None:
    if (
        db.execute("UPDATE requests SET entry = ?, comments = comments + 1 WHERE request = ?", (seq, body["request"])).rowcount
        != 1
    ):
        raise sqlite3.IntegrityError("no such request")
    db.execute("INSERT INTO comments VALUES (?, ?)", (seq, body["request"]))


def _explained(db: sqlite3.Connection, seq: int, body: Body) -> None:
    """Of a failed run, the kind of error and its line left: it tells of real data, and counts as an exact release."""
    changed = db.execute(
        "UPDATE requests SET explained = ?, entry = ? WHERE request = ? AND state = 'failed' AND explained IS NULL",
        (seq, seq, body["request"]),
    ).rowcount
    if changed != 1:
        raise sqlite3.IntegrityError("the request did not fail, or its error was released")
    _count_exact(db, body)


_UNDECIDED = ("filed", "seen", "partly")
_CHANGES: Mapping[str, Callable[[sqlite3.Connection, int, Body], None]] = {
    "opened": _nothing,
    "published": _published,
    "withdrawn": _withdrawn,
    "merged": _merged,
    "topped_up": _topped_up,
    "role": _role,
    "capped": _setting("limits"),
    "approvals": _setting("approvals"),
    "expiry": _setting("expiry"),
    "invited": _invited,
    "enrolled": _enrolled,
    "rotated": _rotated,
    "revoked": _revoked,
    "allowed": _allowed,
    "disallowed": _disallowed,
    "reserved": _reserved,
    "released": _settle("released"),
    "failed": _settle("failed"),
    "interrupted": _settle("interrupted"),
    "suspended": _suspended,
    "restored": _restored,
    "owner_key": _nothing,
    "exported": _nothing,
    "tried": _nothing,
    "filed": _filed,
    "seen": _move("seen", "filed"),
    "endorsed": _move("partly", *_UNDECIDED),
    "approved": _move("approved", *_UNDECIDED),
    "denied": _move("denied", *_UNDECIDED),
    "joined": _move("joined", *_UNDECIDED),
    "left": _move("left", "joined"),
    "expired": _move("expired", *_UNDECIDED, "joined"),
    "cancelled": _move("cancelled", *_UNDECIDED, "approved", "running", "review"),
    "started": _move("running", "approved"),
    "ran": _move("review", "running"),
    "exact": _move("released", "review"),
    "withheld": _move("withheld", "review"),
    "broke": _move("failed", "approved", "running"),
    "cut_off": _move("interrupted", "running"),
    "moved": lambda db, seq, body: _count_exact(db, body),
    "commented": _commented,
    "explained": _explained,
}
