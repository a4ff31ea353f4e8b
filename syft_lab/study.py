"""An exported journal: what an auditor checks without trusting anybody. Pure, and verified offline.

A file holds one JSON document a line: ``{"syft_lab_log": 1, "owner", "curve", "signing", "start", "entries", "head"}``.
``entries`` are the journal's own bytes as text, from position ``start`` on, or ``{"leaf": hash}`` where an entry is
withheld; ``head`` is the newest signed head when the line was written. All lines together hold each position once. The
Merkle tree over all leaves must have the root that the last head signs (RFC 6962 hashing), so nothing was left out,
changed or added; a withheld entry keeps its place. Receipts are checked against the same tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syft_lab import canonical, merkle
from syft_lab.errors import VerificationError, WireError
from syft_lab.identity import PublicKeys
from syft_lab.receipt import LIMIT, Head, Receipt


@dataclass(frozen=True)
class Study:
    """A journal as exported: ``leaves`` of all positions, ``entries`` of those that are not withheld."""

    owner: str
    keys: PublicKeys
    head: Head
    leaves: tuple[bytes, ...]
    entries: dict[int, bytes]

    @property
    def complete(self) -> bool:
        """Whether nothing is withheld."""
        return len(self.entries) == len(self.leaves)

    def said(self) -> Iterator[dict[str, Any]]:
        """The entries that are there, parsed: seq, time, kind, body; oldest first."""
        for seq in sorted(self.entries):
            yield dict(canonical.loads(self.entries[seq], limit=LIMIT))

    def verify(self, signer: PublicKeys | None = None) -> Head:
        """Check hashes, positions, times and the signed head; gives it, or raises VerificationError."""
        signer = signer or self.keys
        if not self.head.is_signed_by(signer):
            raise VerificationError(f"the head of this log isn't signed by {self.owner} ({signer.fingerprint})")
        if self.head.size != len(self.leaves) or _tree(self.leaves).root().hex() != self.head.root:
            raise VerificationError("the log does not match its signed head: entries were changed, left out or added")
        before = ""
        for seq, entry in zip(sorted(self.entries), self.said(), strict=True):
            if entry.get("seq") != seq or not isinstance(entry.get("time"), str) or entry["time"] < before:
                raise VerificationError(f"entry {seq} of the log is out of order")
            before = entry["time"]
        return self.head

    def holds(self, receipts: Sequence[Receipt]) -> None:
        """Check that receipts are in this log, and that it continues the heads in them; raises VerificationError."""
        tree = _tree(self.leaves)
        for receipt in receipts:
            leaf = merkle.leaf_hash(receipt.entry)
            if receipt.index >= len(self.leaves) or self.leaves[receipt.index] != leaf:
                raise VerificationError(f"the log lacks entry {receipt.index}, for which {receipt.owner} signed a receipt: "
                                        "it was rolled back or edited")  # fmt: skip
            if receipt.head.size > len(self.leaves) or tree.root(receipt.head.size).hex() != receipt.head.root:
                raise VerificationError(f"the log does not continue the head of {receipt.head.size} entries in a receipt: "
                                        "it was rolled back or edited")  # fmt: skip


def _tree(leaves: Iterable[bytes]) -> merkle.Tree:
    tree = merkle.Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


def root(leaves: Iterable[bytes]) -> str:
    """The Merkle root over leaf hashes, hexadecimal."""
    return _tree(leaves).root().hex()


def parse(lines: Iterable[bytes]) -> Study:
    """The study in the lines of a file; raises WireError for anything else."""
    malformed = WireError("this is no exported log of Syft Lab")
    leaves: list[bytes] = []
    entries: dict[int, bytes] = {}
    owner, keys, head = "", None, None
    for line in lines:
        part = canonical.loads(line, limit=LIMIT)
        try:
            if part["syft_lab_log"] != 1 or part["start"] != len(leaves):
                raise malformed
            found = PublicKeys(part["curve"], part["signing"])
            if keys is not None and (found.signing, str(part["owner"])[:64]) != (keys.signing, owner):
                raise malformed
            owner, keys, head = str(part["owner"])[:64], found, Head.from_json(part["head"])
            for entry in part["entries"]:
                if isinstance(entry, str):
                    entries[len(leaves)] = entry.encode()
                    leaves.append(merkle.leaf_hash(entry.encode()))
                else:
                    leaf = bytes.fromhex(entry["leaf"])
                    if len(leaf) != merkle.WIDTH:
                        raise malformed
                    leaves.append(leaf)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise malformed from None
    if keys is None or head is None:
        raise malformed
    return Study(owner, keys, head, tuple(leaves), entries)


def is_study(path: Path) -> bool:
    """Whether a file looks like an exported log, rather than a receipt."""
    with path.open("rb") as file:
        return b'"syft_lab_log"' in file.readline(LIMIT)


def load(path: str | Path) -> Study:
    """The study in a file; raises WireError."""
    with Path(path).open("rb") as file:
        return parse(line for line in file if line.strip())
