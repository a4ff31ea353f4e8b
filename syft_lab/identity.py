"""Who is who: names, key pairs, invitations and the trust file.

A party has two key pairs, made on first use: a CURVE25519 pair that encrypts and authenticates the wire, and an
Ed25519 pair that signs (journal heads at an owner, enrolments and rotations at an analyst). Secret keys and
invitations live in files only their owner can read (0600); a file that others can read is refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import zmq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from syft_lab import canonical, state
from syft_lab.errors import InvitationError, StateError, UsageError, WireError
from syft_lab.printable import printed

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


def check_name(name: str, what: str = "name") -> str:
    """``name`` if it can name a party, a dataset or a population: 1–64 of a–z, 0–9, '.', '_', '-'."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = ascii(name)[:80]
        raise UsageError(f"{what} {shown}: use 1 to 64 lower-case letters, digits, '.', '_' or '-', "
                         "starting and ending with a letter or digit")  # fmt: skip
    return name


def check_curve_key(key: str) -> str:
    """``key`` if it is a CURVE public key in Z85 (40 characters); raises WireError."""
    if not isinstance(key, str) or not _Z85.fullmatch(key):
        raise WireError("a CURVE public key has 40 characters of Z85")
    return key


@dataclass(frozen=True)
class PublicKeys:
    """What others may know: ``curve`` (Z85, 40 characters) and ``signing`` (Ed25519, 64 hexadecimal digits)."""

    curve: str
    signing: str

    def __post_init__(self) -> None:
        check_curve_key(self.curve)
        if not isinstance(self.signing, str) or not re.fullmatch(r"[0-9a-f]{64}", self.signing):
            raise WireError("an Ed25519 public key has 64 hexadecimal digits")

    @property
    def fingerprint(self) -> str:
        """128 bits of SHA-256 over the signing key, in groups of four: what people compare by voice.

        It covers the key that signs: the CURVE key may be rotated, and is vouched for by the signing key.
        """
        return fingerprint(self.signing)

    def verify(self, purpose: str, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this party's over ``data``, made for ``purpose``."""
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.signing)).verify(signature, _sealed(purpose, data))
        except (InvalidSignature, ValueError):
            return False
        return True


def fingerprint(signing: str) -> str:
    """See `PublicKeys.fingerprint`; ``signing`` has 64 hexadecimal digits."""
    digits = sha256(b"syft-lab fingerprint\0" + bytes.fromhex(signing)).hexdigest()[:32]
    return " ".join(digits[i : i + 4] for i in range(0, 32, 4))


class Keys:
    """A party's key pairs. ``public`` may be shown; the rest never leaves its file and this object."""

    def __init__(self, curve_secret: str, signing_seed: bytes) -> None:
        self.curve_secret = curve_secret
        self._signing = Ed25519PrivateKey.from_private_bytes(signing_seed)
        self._seed = signing_seed
        curve = zmq.curve_public(curve_secret.encode()).decode()
        self.public = PublicKeys(curve, self._signing.public_key().public_bytes_raw().hex())

    @printed
    def __repr__(self) -> str:
        return f"<Keys {self.public.fingerprint}>"

    @classmethod
    def generate(cls) -> Keys:
        """New pairs from the operating system's generator."""
        return cls(zmq.curve_keypair()[1].decode(), Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def load_or_create(cls, path: Path) -> Keys:
        """The keys in ``path`` (0600), made on first use."""
        if not path.exists():
            keys = cls.generate()
            keys.save(path)
            return keys
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Keys:
        """The keys in ``path``; raises StateError for a damaged file or one that others can read."""
        content = read_secret(path)
        try:
            return cls(content["curve_secret"], bytes.fromhex(content["signing_seed"]))
        except (KeyError, TypeError, ValueError, WireError):
            raise StateError(f"{path.name} holds no key pair; restore it from a backup") from None

    def save(self, path: Path) -> None:
        """Write the keys to ``path``, readable by this user only."""
        write_secret(path, {"curve_secret": self.curve_secret, "signing_seed": self._seed.hex()})

    def sign(self, purpose: str, data: bytes) -> bytes:
        """Ed25519 signature over ``data`` for one ``purpose``; a signature made for another never fits."""
        return self._signing.sign(_sealed(purpose, data))

    def with_new_curve(self) -> Keys:
        """The same signing pair with a new CURVE pair."""
        return Keys(zmq.curve_keypair()[1].decode(), self._seed)


def _sealed(purpose: str, data: bytes) -> bytes:
    return f"syft-lab {purpose} v1".encode() + b"\0" + data


def write_secret(path: Path, content: dict[str, Any]) -> None:
    """Write JSON to ``path`` with mode 0600, whole or not at all, and durable."""
    if not path.parent.exists():
        state.make_private(path.parent)
    with state.writing(path) as file:
        file.write(canonical.dumps(content))


def read_secret(path: Path) -> dict[str, Any]:
    """JSON object from a file only its owner may read; raises StateError."""
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise StateError(f"others can read {path.name}, which holds a secret: run chmod 600 on it, or make a new one")
        content = canonical.loads(path.read_bytes())
    except (OSError, WireError):
        raise StateError(f"{path.name} is missing or damaged; restore it from a backup") from None
    if not isinstance(content, dict):
        raise StateError(f"{path.name} is damaged; restore it from a backup")
    return content


@dataclass(frozen=True)
class Invitation:
    """A file that lets one person enrol once. ``secret`` is a one-time CURVE key; ``expires`` is ISO 8601 in UTC."""

    owner: str
    curve: str
    signing: str
    addresses: tuple[str, ...]
    analyst: str
    role: str
    expires: str
    secret: str = field(repr=False)
    signature: str = ""

    @property
    def id(self) -> str:
        """The one-time public key: names the invitation at the owner."""
        return zmq.curve_public(self.secret.encode()).decode()

    @property
    def keys(self) -> PublicKeys:
        """The owner's public keys, pinned from here on."""
        return PublicKeys(self.curve, self.signing)

    @property
    def expired(self) -> bool:
        """Whether the date has passed."""
        return datetime.fromisoformat(self.expires) <= datetime.now(UTC)

    def signed_by(self, keys: Keys) -> Invitation:
        """The same invitation with the owner's signature."""
        return replace(self, signature=keys.sign("invitation", self._signed_part()).hex())

    def write(self, path: Path) -> None:
        """Write the file (0600)."""
        write_secret(path, {"syft_lab_invitation": 1, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Invitation:
        """The invitation in ``path``; raises InvitationError with one clear line."""
        if not path.is_file():
            raise InvitationError(f"there is no file {path.name}; ask the owner for an invitation")
        try:
            content = read_secret(path)
        except StateError as error:
            raise InvitationError(str(error)) from None
        return cls._parse(content, path.name)

    @classmethod
    def _parse(cls, content: dict[str, Any], name: str) -> Invitation:
        damaged = InvitationError(f"{name} is not a whole invitation; ask the owner for a new one")
        if content.pop("syft_lab_invitation", None) != 1:
            raise damaged
        try:
            found = cls(**{**content, "addresses": tuple(content["addresses"])})
            check_name(found.owner)
            check_name(found.analyst)
            datetime.fromisoformat(found.expires)
            if not found.addresses or not all(isinstance(a, str) and len(a) < 300 for a in found.addresses):
                raise damaged
            if not found.keys.verify("invitation", found._signed_part(), bytes.fromhex(found.signature)):
                raise damaged
            zmq.curve_public(found.secret.encode())
        except (TypeError, KeyError, ValueError, AttributeError, WireError, zmq.ZMQError):
            raise damaged from None
        return found

    def _signed_part(self) -> bytes:
        return canonical.dumps({k: v for k, v in asdict(self).items() if k != "signature"})


def seconds_of(text: str, what: str = "expires") -> float:
    """Seconds in '30m', '12h', '7d' or '2w'; raises UsageError that names ``what``."""
    match = re.fullmatch(r"(\d{1,4})([mhdw])", text.strip()) if isinstance(text, str) else None
    if not match:
        raise UsageError(f"{what}={ascii(text)[:40]}: write a number and m, h, d or w, such as '7d'")
    if int(match[1]) == 0:
        raise UsageError(f"{what} must lie in the future, such as '7d'")
    return int(match[1]) * {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}[match[2]]


def expiry(duration: str | timedelta, now: datetime | None = None) -> str:
    """ISO 8601 time in UTC, ``duration`` from now: '30m', '12h', '7d', '2w', or a timedelta."""
    if not isinstance(duration, timedelta):
        duration = timedelta(seconds=seconds_of(duration))
    if duration <= timedelta(0):
        raise UsageError("expires must lie in the future, such as '7d'")
    return ((now or datetime.now(UTC)) + duration).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Trust:
    """One line of the analyst's trust file: an owner, pinned. ``curve_keys`` holds the key in use, then announced ones."""

    owner: str
    analyst: str
    signing: str
    curve_keys: tuple[str, ...]
    addresses: tuple[str, ...]
    invitation: str
    head: dict[str, Any] | None = None

    @property
    def keys(self) -> PublicKeys:
        """The owner's public keys in use."""
        return PublicKeys(self.curve_keys[0], self.signing)

    def save(self, folder: Path) -> None:
        """Write ``trust.json`` into the connection's folder."""
        write_secret(folder / "trust.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Trust:
        """The pinned owner of a connection; raises StateError for a damaged file."""
        content = read_secret(folder / "trust.json")
        try:
            tuples = {k: tuple(content[k]) for k in ("curve_keys", "addresses")}
            found = cls(**{**content, **tuples})
            for key in found.curve_keys:
                PublicKeys(key, found.signing)
        except (TypeError, KeyError, WireError):
            raise StateError("trust.json is damaged; remove the connection's folder and ask for a new invitation") from None
        return found
