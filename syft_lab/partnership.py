"""A partnership: owners who agree that their kernels compute together on shares, and on what may be opened. Pure.

Its terms are the same text for all: who takes part (name and signing key), for which analyst (the signing key under which
each of them knows the analyst), what for, with which protocol, for how long. Their hash is the federation's id, so that an id
stands for exactly these keys; each owner accepts that and nothing else.

Before each run a party's kernel signs an *offer*: the key that its party uses in this run, and where it listens. The
partners check it against the key that they accepted; so whoever carries the offers can't put in another party.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from syft_lab import canonical
from syft_lab.errors import LabError, UsageError, VerificationError, WireError
from syft_lab.identity import Keys, PublicKeys, check_name, fingerprint

MAX_TERMS, MAX_PURPOSE, MAX_DAYS, FRACTIONS = 16 << 10, 2_000, 366, range(2, 19, 2)
FRACTION, RANGE_BITS, DAYS = 18, 30, 30
PROTOCOLS = {("aby3", "semi-honest"): 3}  # and how many owners it is for
RETURNS, VOUCHERS = ("value", "vouchers"), (4, 4)  # what an owner lets go of a value, and the shape of the second, as int64
COLLUSION = "any two of the three owners together could open everything; one alone learns nothing"
ADVERSARY = "semi-honest: it protects against owners who look, not against one that runs another program"


class Member(NamedTuple):
    """An owner by its name; its signing key, and that of the analyst as this owner knows it, in hexadecimal digits."""

    name: str
    signing: str
    analyst: str

    @property
    def fingerprint(self) -> str:
        """Of its signing key, as its owner sees it."""
        return fingerprint(self.signing)


@dataclass(frozen=True)
class Partnership:
    """The terms. ``days`` it holds from when an owner accepts; ``fraction`` bits after the point have the numbers."""

    members: tuple[Member, ...]
    purpose: str
    days: int = DAYS
    fraction: int = FRACTION
    protocol: str = "aby3"
    security: str = "semi-honest"

    def to_json(self) -> dict[str, Any]:
        """The terms as JSON; `parse` gives them back."""
        return {**{k: getattr(self, k) for k in _PLAIN}, "members": [list(m) for m in self.members]}

    @property
    def id(self) -> str:
        """What names the federation: SHA-256 of the terms, in hexadecimal digits."""
        return hashlib.sha256(canonical.dumps(self.to_json())).hexdigest()

    @property
    def digest(self) -> str:
        """What an owner accepts."""
        return f"sha256:{self.id}"

    @property
    def names(self) -> tuple[str, ...]:
        """The owners' names, in their order: that of the parties."""
        return tuple(m.name for m in self.members)

    @property
    def limit(self) -> int:
        """Numbers that are shared must be smaller than this."""
        return int(2 ** (RANGE_BITS - self.fraction))

    @property
    def badge(self) -> str:
        """Protocol, adversary, and who must not collude, in one line."""
        return f"{self.protocol.upper()}, {self.security}: {COLLUSION}"

    def check(self) -> Self:
        """Itself; raises UsageError that says what is wrong."""
        count = PROTOCOLS.get((self.protocol, self.security))
        if count is None:
            known = "; ".join(f"protocol={p!r}, security={s!r}" for p, s in PROTOCOLS)
            raise UsageError(f"there is no protocol {ascii(self.protocol)[:40]} with security {ascii(self.security)[:40]}; "
                             f"there is: {known}")  # fmt: skip
        if len(self.members) != count or len({m.name for m in self.members}) != count:
            raise UsageError(f"{self.protocol} is for {count} different owners: lab.federation(a, b, c)")
        if len({m.signing for m in self.members}) != count:
            raise UsageError("two of these owners have the same key: they are one, and could open everything")
        for member in self.members:
            check_name(member.name, "an owner's name")
        if not self.purpose.strip() or len(self.purpose) > MAX_PURPOSE:
            raise UsageError(f'say what for, in 1 to {MAX_PURPOSE} characters: purpose="readmissions over three clinics"')
        if type(self.days) is not int or not 1 <= self.days <= MAX_DAYS:
            raise UsageError(f"a partnership holds for 1 to {MAX_DAYS} whole days")
        if self.fraction not in FRACTIONS or type(self.fraction) is not int:
            raise UsageError(f"fraction is an even number of bits, {FRACTIONS[0]} to {FRACTIONS[-1]}")
        return self

    def text(self) -> str:
        """The terms as an owner reads them in the inbox."""
        owners = "\n".join(f"#     {m.name}  fingerprint {m.fingerprint}" for m in self.members)
        analyst = "\n".join(f"#     at {m.name}  fingerprint {fingerprint(m.analyst)}" for m in self.members)
        return (
            "# A partnership: the kernels of these owners compute together,\n# on shares of their data.\n"
            f"# Owners\n{owners}\n"
            "#     Compare the fingerprints with them, by telephone say.\n"
            f"# The analyst, and nobody else, by the key that each owner knows\n{analyst}\n"
            f"# Protocol\n#     {self.protocol.upper()}, {self.security}: any two of these owners together\n"
            "#     could open everything; one alone learns nothing.\n"
            "# What your kernel shares\n"
            "#     Datasets that are open to this analyst when you accept.\n"
            "#     Partners receive numbers that look random. Your rules decide:\n"
            '#     owner.policy.refuse("share", dataset="ages") keeps one back.\n'
            "# What may be opened\n"
            "#     Nothing without a request here, about one value, which every\n#     one of the owners must let go.\n"
            f"# How long\n#     {self.days} days from when you accept; you can leave before.\n"
        )


_PLAIN = ("purpose", "days", "fraction", "protocol", "security")


def parse(data: bytes) -> Partnership:
    """The terms from a stranger; raises WireError or UsageError."""
    found = canonical.loads(data, limit=MAX_TERMS)
    if not isinstance(found, dict) or set(found) != {*_PLAIN, "members"} or not isinstance(found["members"], list):
        raise WireError(f"a partnership has members, {', '.join(_PLAIN)}")
    members = []
    for each in found["members"]:
        if not isinstance(each, list) or len(each) != 3 or not all(isinstance(t, str) for t in each):
            raise WireError("a member is a name, a signing key, and the analyst's key there")
        members.append(_member(*each))
    if not all(isinstance(found[k], str) for k in ("purpose", "protocol", "security")):
        raise WireError("purpose, protocol and security are text")
    return Partnership(tuple(members), **{k: found[k] for k in _PLAIN}).check()


def _member(name: str, signing: str, analyst: str) -> Member:
    for key in (signing, analyst):
        if len(key) != 64 or not all(c in "0123456789abcdef" for c in key):
            raise WireError("a signing key has 64 hexadecimal digits")
    return Member(name, signing, analyst)


class Offer(NamedTuple):
    """What a party uses in one run: its CURVE key, the address that its partners reach, and a port for each of them."""

    curve: str
    host: str
    ports: Mapping[int, int]

    def signed(self, keys: Keys, federation: str, space: str, index: int) -> dict[str, Any]:
        """As JSON, with the signature of its kernel."""
        ports = [[i, p] for i, p in sorted(self.ports.items())]
        signature = keys.sign("party", _covered(federation, space, index, self.curve, self.host, ports))
        return {"curve": self.curve, "host": self.host, "ports": ports, "signature": signature.hex()}


def _covered(federation: str, space: str, index: int, curve: str, host: str, ports: Any) -> bytes:
    return canonical.dumps([federation, space, index, curve, host, ports])


def offers(data: bytes, terms: Partnership, space: str) -> list[Offer]:
    """The offers of all members for a run, from a stranger; raises VerificationError for one that its member did not sign."""
    found = canonical.loads(data, limit=MAX_TERMS)
    if not isinstance(found, list) or len(found) != len(terms.members):
        raise WireError("a run has an offer of each member")
    return [_offer(said, terms, space, index) for index, said in enumerate(found)]


def _offer(said: Any, terms: Partnership, space: str, index: int) -> Offer:
    wrong = WireError("an offer has a key, an address, ports and a signature")
    if not isinstance(said, dict) or set(said) != {"curve", "host", "ports", "signature"}:
        raise wrong
    curve, host, ports, signature = (said[k] for k in ("curve", "host", "ports", "signature"))
    if not all(isinstance(t, str) and len(t) <= 253 for t in (curve, host, signature)) or not _pairs(ports, len(terms.members)):
        raise wrong
    member = terms.members[index]
    try:
        key = PublicKeys(curve, member.signing)
        signed = key.verify("party", _covered(terms.id, space, index, curve, host, ports), bytes.fromhex(signature))
    except (LabError, ValueError):
        signed = False
    if not signed:
        raise VerificationError(f"the offer of {member.name} for this run is not signed by the key that was accepted")
    return Offer(curve, host, dict(ports))


def _pairs(ports: Any, parties: int) -> bool:
    return isinstance(ports, list) and all(
        isinstance(p, list) and len(p) == 2 and all(type(n) is int for n in p) and 0 <= p[0] < parties and 0 < p[1] < 1 << 16
        for p in ports
    )


def reached(offered: Sequence[Offer], index: int, resolve: Any) -> dict[int, str]:
    """Where party ``index`` reaches those before it: "address:port"; ``resolve`` makes a number of a host's name."""
    found = {}
    for other in range(index):
        port = offered[other].ports.get(index)
        if port is None:
            raise WireError("an offer has no port for this party")
        host = offered[other].host
        try:
            ipaddress.ip_address(host)
        except ValueError:
            host = resolve(host)
        found[other] = f"{host}:{port}"
    return found
