"""The journal on its way out: in parts, for auditors. Entries with an owner's secret in them go as hashes only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from syft_lab import canonical, state
from syft_lab.identity import PublicKeys
from syft_lab.kernel.journal import Entry, Journal

PART_BYTES = 8 << 20


def part(owner: str, keys: PublicKeys, journal: Journal, start: int, shown: Callable[[Entry], bool] | None = None) -> bytes:
    """One line of an exported journal, from entry ``start`` on: see `syft_lab.study`."""
    size = len(journal)
    entries: list[Any] = []
    total = 0
    for entry in journal.entries(min(start, size), size):
        visible = _harmless(entry) and (shown is None or shown(entry))
        entries.append(entry.data.decode() if visible else {"leaf": journal.leaf(entry.seq).hex()})
        total += len(entry.data)
        if total > PART_BYTES:
            break
    said = {"syft_lab_log": 1, "owner": owner, "curve": keys.curve, "signing": keys.signing, "start": start,
            "entries": entries, "head": journal.head_at(size).to_json()}  # fmt: skip
    return canonical.dumps(said)


def _harmless(entry: Entry) -> bool:
    """Older journals held the salt of a table's commitment, which would let a guess at the table be tried out."""
    return entry.kind != "published" or "salt" not in entry.body["meta"]


def write(path: Path, owner: str, keys: PublicKeys, journal: Journal, shown: Callable[[Entry], bool] | None = None) -> int:
    """Write the whole journal to a file; gives the number of entries."""
    start = 0
    with state.given(path) as out:
        while True:
            line = part(owner, keys, journal, start, shown)
            said = canonical.loads(line, limit=1 << 30)
            out.write(line + b"\n")
            start += len(said["entries"])
            if start >= said["head"]["size"]:
                return start


def about(analyst: str) -> Callable[[Entry], bool]:
    """Entries about one analyst, and those about nobody in particular: datasets, rules, roles."""
    return lambda entry: entry.body.get("analyst") in (None, analyst)
