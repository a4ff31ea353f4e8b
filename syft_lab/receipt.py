"""Receipts: signed proof that an owner released a value. Pure, and verified offline.

A receipt holds the journal's entry about the release, the path from that entry to a signed tree head, and the path
from the head the analyst held before to that head. Whoever knows the owner's signing key can check all of it without
the owner. The entry binds the analyst, the digest of what ran, salted commitments to the data version, the mechanism
and its parameters, the guarantee, the cost and this analyst's account before and after; the random nonce in it keeps
others from guessing entries whose hashes they see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syft_lab import canonical, merkle, state, wording
from syft_lab.errors import VerificationError, WireError
from syft_lab.identity import PublicKeys
from syft_lab.printable import printed

LIMIT = 64 << 20  # bytes of a receipt
RELEASES = ("released", "exact", "explained")  # kinds of entries: a DP answer, an exact result of code, its kind of error


@dataclass(frozen=True)
class Head:
    """A signed tree head: number of entries, root hash (hex), ISO time, and the owner's signature (hex)."""

    size: int
    root: str
    time: str
    signature: str

    def signed_part(self) -> bytes:
        """The bytes that the owner signs."""
        return canonical.dumps({"root": self.root, "size": self.size, "time": self.time})

    def is_signed_by(self, keys: PublicKeys) -> bool:
        """Whether the owner with these keys made this head."""
        try:
            return keys.verify("head", self.signed_part(), bytes.fromhex(self.signature))
        except ValueError:
            return False

    def to_json(self) -> dict[str, Any]:
        """The head as a JSON object."""
        return {"size": self.size, "root": self.root, "time": self.time, "signature": self.signature}

    @classmethod
    def from_json(cls, value: Any) -> Head:
        """The head in a JSON object; raises WireError."""
        if not isinstance(value, dict) or set(value) != {"size", "root", "time", "signature"}:
            raise WireError("a signed head has size, root, time and signature")
        size = value["size"]
        texts = [value[k] for k in ("root", "time", "signature")]
        if type(size) is not int or size < 0 or not all(isinstance(t, str) and len(t) <= 128 for t in texts):
            raise WireError("a signed head has a size, and texts of at most 128 characters")
        _hash(value["root"])
        return cls(size, *texts)

    def continues(self, old: Head, proof: list[bytes]) -> bool:
        """Whether ``proof`` shows that this head's log extends the older one's."""
        return merkle.verify_consistency(old.size, self.size, proof, bytes.fromhex(old.root), bytes.fromhex(self.root))


@dataclass(frozen=True)
class Receipt:
    """Proof of one release. ``entry`` is the journal's entry, byte for byte; ``details`` is what it says.

    ``signer`` are the keys the owner was known by when the receipt came; `verify` uses them unless others are given.
    """

    owner: str
    signer: PublicKeys
    entry: bytes
    index: int
    path: tuple[bytes, ...]
    head: Head
    previous: Head | None = None
    continuation: tuple[bytes, ...] = ()

    @property
    def details(self) -> dict[str, Any]:
        """What the owner signed: analyst, query, mechanism, guarantee, cost, account before and after, …"""
        return dict(canonical.loads(self.entry, limit=LIMIT)["body"])

    @property
    def time(self) -> str:
        """When the owner released the value, ISO 8601."""
        return str(canonical.loads(self.entry, limit=LIMIT)["time"])

    def verify(self, signer: PublicKeys | None = None, kind: str | None = None) -> dict[str, Any]:
        """Check signature, inclusion and consistency offline; gives the details or raises VerificationError.

        ``signer`` are the owner's keys as you know them; ``kind`` is what the entry must be about (default: a release).
        """
        signer = signer or self.signer
        if not self.head.is_signed_by(signer):
            raise VerificationError(f"the head in this receipt isn't signed by {self.owner} ({signer.fingerprint})")
        leaf = merkle.leaf_hash(self.entry)
        root = bytes.fromhex(self.head.root)
        if not merkle.verify_inclusion(leaf, self.index, self.head.size, self.path, root):
            raise VerificationError("the entry in this receipt isn't in the log that the owner signed")
        if self.previous is not None:
            if not self.previous.is_signed_by(signer):
                raise VerificationError(f"the earlier head in this receipt isn't signed by {self.owner}")
            if not self.head.continues(self.previous, list(self.continuation)):
                raise VerificationError("the owner's log does not continue the one it signed before")
        kinds = RELEASES if kind is None else (kind,)
        said = canonical.loads(self.entry, limit=LIMIT)
        if said.get("kind") not in kinds:
            raise VerificationError(f"the entry in this receipt isn't of the kind {' or '.join(kinds)}")
        return dict(said["body"])

    def to_json(self) -> dict[str, Any]:
        """The receipt as a JSON object; `from_json` gives it back."""
        return {
            "syft_lab_receipt": 1,
            "owner": self.owner,
            "curve": self.signer.curve,
            "signing": self.signer.signing,
            "entry": self.entry.decode(),
            "index": self.index,
            "path": [p.hex() for p in self.path],
            "head": self.head.to_json(),
            "previous": self.previous.to_json() if self.previous else None,
            "continuation": [p.hex() for p in self.continuation],
        }

    @classmethod
    def from_json(cls, value: Any) -> Receipt:
        """The receipt in a JSON object; raises WireError for anything else."""
        malformed = WireError("this is not a receipt of Syft Lab")
        if not isinstance(value, dict) or value.get("syft_lab_receipt") != 1:
            raise malformed
        try:
            entry = value["entry"].encode()
            body = canonical.loads(entry, limit=LIMIT)
            if not isinstance(body, dict) or not isinstance(body["body"], dict) or type(value["index"]) is not int:
                raise malformed
            return cls(
                owner=str(value["owner"])[:64],
                signer=PublicKeys(value["curve"], value["signing"]),
                entry=entry,
                index=value["index"],
                path=_hashes(value["path"]),
                head=Head.from_json(value["head"]),
                previous=None if value["previous"] is None else Head.from_json(value["previous"]),
                continuation=_hashes(value["continuation"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            raise malformed from None

    def save(self, path: str | Path) -> Path:
        """Write the receipt as JSON (0600); `syft-lab verify` reads it."""
        path = Path(path)
        with state.given(path) as out:
            out.write(canonical.dumps(self.to_json()))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Receipt:
        """The receipt in a file; raises WireError."""
        return cls.from_json(canonical.loads(Path(path).read_bytes(), limit=LIMIT))

    @printed
    def __repr__(self) -> str:
        said = self.details
        about = f"{said['dataset']} v{said['version']}" if "dataset" in said else ", ".join(said.get("returns", ()))
        question = wording.asked(said)
        about += f" ({question})" if question else ""
        return (
            f"Receipt from {self.owner}, {self.time}: {said.get('guarantee')} on {about}, "
            f"entry {self.index + 1} of {self.head.size}"
        )


def _hash(text: Any) -> bytes:
    try:
        value = bytes.fromhex(text)
    except (TypeError, ValueError):
        raise WireError("a hash has 64 hexadecimal digits") from None
    if len(value) != merkle.WIDTH:
        raise WireError("a hash has 64 hexadecimal digits")
    return value


def _hashes(values: Any) -> tuple[bytes, ...]:
    if not isinstance(values, list) or len(values) > 128:
        raise WireError("a proof is a list of at most 128 hashes")
    return tuple(_hash(v) for v in values)
