"""Who may connect: invitations and analysts, by public key. A view of the journal, kept in memory for every message."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from syft_lab import canonical
from syft_lab.errors import InvitationError, KeyMismatchError, ProtocolError, RefusedError
from syft_lab.identity import PublicKeys
from syft_lab.kernel.journal import Journal
from syft_lab.kernel.roles import ROLES, lacks
from syft_lab.wire.messages import VERSIONS


@dataclass(frozen=True)
class Analyst:
    """Somebody enrolled, in whatever role. ``datasets`` are the names open to them, ``rights`` what they may do."""

    name: str
    role: str
    datasets: tuple[str, ...]
    keys: PublicKeys
    state: str
    rights: tuple[str, ...] = ROLES["analyst"]

    def need(self, right: str) -> None:
        """Raises RefusedError where the role lacks a right."""
        if right not in self.rights:
            raise RefusedError(lacks(self.name, self.role, right))


@dataclass(frozen=True)
class OpenInvitation:
    """An invitation as the owner remembers it; ``curve`` is the long-term key that used it."""

    id: str
    analyst: str
    role: str
    expires: str
    state: str
    curve: str | None


class Registry:
    """Looks keys up. `reload` after any entry that changes who is who."""

    def __init__(self, journal: Journal, manager: str = "") -> None:
        self._journal = journal
        self.manager = manager  # the CURVE key of the owner's own terminal
        self._enrolling = threading.Lock()
        self.on_change: list[Callable[[], None]] = []
        self.reload()

    def reload(self) -> None:
        """Read the views again."""
        self.roles = {
            **ROLES,
            **{n: tuple(canonical.loads(r)) for n, r in self._journal.read("SELECT name, rights FROM roles")},
        }
        columns = "curve, name, signing, role, datasets, state"
        self._analysts = {
            curve: Analyst(
                name, role, tuple(canonical.loads(datasets)), PublicKeys(curve, signing), state, self.roles.get(role, ())
            )
            for curve, name, signing, role, datasets, state in self._journal.read(f"SELECT {columns} FROM analysts")
        }
        columns = "id, analyst, role, expires, state, curve"
        rows = self._journal.read(f"SELECT {columns} FROM invitations")
        self._invitations = {row[0]: OpenInvitation(*row) for row in rows}
        for hear in self.on_change:
            hear()

    @property
    def analysts(self) -> list[Analyst]:
        """Those who may ask now."""
        return [a for a in self._analysts.values() if a.state == "active"]

    @property
    def known(self) -> set[str]:
        """Names of all who ever enrolled."""
        return {a.name for a in self._analysts.values()}

    @property
    def invitations(self) -> list[OpenInvitation]:
        """All there ever were, oldest first."""
        return list(self._invitations.values())

    def admits(self, key: str) -> bool:
        """May this key shake hands? Every key we ever knew may, so that a person reads why they are refused."""
        return key in self._analysts or key in self._invitations or (bool(key) and key == self.manager)

    def admitted(self) -> list[str]:
        """All keys that `admits` lets in."""
        return [*self._analysts, *self._invitations, *([self.manager] if self.manager else [])]

    @property
    def revoked(self) -> set[str]:
        """Keys of analysts whose access was revoked."""
        return {key for key, found in self._analysts.items() if found.state == "revoked"}

    def name_of(self, key: str) -> str:
        """Whose key it is, in words for the owner."""
        found = self._analysts.get(key)
        return found.name if found is not None else "the terminal" if key == self.manager else "somebody with an invitation"

    def analyst(self, key: str) -> Analyst:
        """The analyst with this key, judged anew for every message; raises an error that says why not."""
        found = self._analysts.get(key)
        if found is None:
            if key in self._invitations:
                raise InvitationError("the key of an invitation can enrol and nothing else")
            raise KeyMismatchError("the owner does not know this key; ask the owner for an invitation")
        if found.state == "revoked":
            raise RefusedError(f"the owner has revoked {found.name}'s access; ask the owner")
        if found.state != "active":
            raise KeyMismatchError(f"{found.name} has newer keys than these; ask the owner for an invitation if you lost them")
        return found

    def enrol(self, invitation: str, keys: PublicKeys) -> Analyst:
        """Use an invitation up; the same again, with the same keys, is answered as before. Raises InvitationError."""
        with self._enrolling:
            found = self._invitations.get(invitation)
            if found is None:
                raise InvitationError("the owner knows no such invitation; ask for a new one")
            if found.state == "used" and found.curve == keys.curve and self._analysts[keys.curve].keys == keys:
                return self.analyst(keys.curve)
            if found.state == "used":
                raise InvitationError("this invitation was used already; if that wasn't you, tell the owner now")
            if found.state != "open":
                raise InvitationError("the owner has revoked this invitation; ask for a new one")
            if datetime.fromisoformat(found.expires) <= self._journal.now():
                raise InvitationError(f"this invitation expired on {found.expires[:10]}; ask the owner for a new one")
            if self.admits(keys.curve):
                raise InvitationError("these keys are known here already; make new ones to enrol")
            body = {"invitation": invitation, "analyst": found.analyst, "curve": keys.curve, "signing": keys.signing}
            self._journal.append("enrolled", body)
            self.reload()
            return self.analyst(keys.curve)

    def rotate(self, analyst: Analyst, keys: PublicKeys) -> None:
        """Put new keys in place of an analyst's; from now on the old ones are refused."""
        with self._enrolling:
            if self.admits(keys.curve):
                raise KeyMismatchError("these keys are known here already; make new ones")
            body = {"analyst": analyst.name, "old_curve": analyst.keys.curve, "curve": keys.curve, "signing": keys.signing}
            self._journal.append("rotated", body)
            self.reload()


def agree(versions: list[int]) -> int:
    """The highest protocol version that both sides speak; raises ProtocolError that says which side to upgrade."""
    common = set(versions) & set(VERSIONS)
    if common:
        return max(common)
    ours, theirs = f"{min(VERSIONS)} to {max(VERSIONS)}", ", ".join(map(str, sorted(versions)[:8])) or "none"
    side = "the owner's" if versions and min(versions) > max(VERSIONS) else "your"
    raise ProtocolError(f"the owner speaks versions {ours} of the protocol, you speak {theirs}: upgrade {side} syft-lab")
