"""`Federation`: owners who compute together on shares; ``lab.federation(a, b, c)`` asks them to."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from syft_lab.analyst.pointer import PointerTensor, _converted, install
from syft_lab.analyst.request import STATES, RemoteRequest
from syft_lab.analyst.session import Session
from syft_lab.analyst.shared import FixedPrecision, SharedTape, SharedTensor, shared_spec
from syft_lab.errors import NotYetError, RefusedError, UsageError
from syft_lab.labels import Label
from syft_lab.partnership import ADVERSARY, COLLUSION, DAYS, FRACTION, Member, Partnership
from syft_lab.printable import printable, printed
from syft_lab.widgets import cards

if TYPE_CHECKING:
    from syft_lab.record import Recorded

WAIT_SECONDS = 600.0


def federation(
    *owners: Session, purpose: str = "computing together", protocol: str = "aby3", security: str = "semi-honest",
    days: int = DAYS, fraction: int = FRACTION,
) -> Federation:  # fmt: skip
    """Ask owners you are connected to, to compute together on shares: each accepts once, in the inbox.

    The same terms again are the same federation: what was accepted holds for ``days``. Numbers have ``fraction`` bits after the
    point; fewer let them be larger (18: below 4 096, 10: below a million). Raises UsageError for terms that can't be.
    """
    if not all(isinstance(o, Session) for o in owners):
        raise UsageError("a federation is of owners you are connected to: lab.federation(hospital_a, hospital_b, hospital_c)")
    members = tuple(Member(o.owner, o.signing, o.own_signing) for o in owners)
    terms = Partnership(members, purpose, days, fraction, protocol, security).check()
    install()
    return Federation(owners, terms)


class Federation:
    """Owners who compute together. ``requests`` are what each of them was asked, by name; `share` splits values among them."""

    def __init__(self, owners: Sequence[Session], terms: Partnership) -> None:
        self.owners, self.terms = tuple(owners), terms
        self._tape: SharedTape | None = None
        self._lock = threading.Lock()
        self.requests: dict[str, RemoteRequest] = {o.owner: o.propose(terms) for o in self.owners}
        for owner in self.owners:
            owner.federations.add(self)

    @property
    def id(self) -> str:
        """SHA-256 of the terms: it stands for these owners' keys, and for yours."""
        return self.terms.id

    @property
    def name(self) -> str:
        """The owners' names."""
        return " + ".join(self.terms.names)

    @property
    def state(self) -> dict[str, str]:
        """Of each owner: joined, or how far the request is."""
        return {name: r.state for name, r in self.requests.items()}

    @property
    def accepted(self) -> bool:
        """Whether every owner takes part."""
        return all(s == "joined" for s in self.state.values())

    def wait(self, timeout: float = WAIT_SECONDS) -> Federation:
        """Wait until every owner has accepted; gives itself. Raises RefusedError, or NotYetError after ``timeout`` seconds."""
        changed = threading.Event()
        for request in self.requests.values():
            request.on_change(lambda _: changed.set())
        self._renew()
        end = time.monotonic() + timeout
        while not self.accepted:
            self._check_possible()
            if time.monotonic() > end:
                raise NotYetError(f"{self._missing()} after {timeout:g} s: wait on with federation.wait(), the requests stay")
            changed.wait(0.2)
            changed.clear()
        return self

    def _renew(self) -> None:
        """Ask each owner how it stands: nobody follows a request that was accepted."""
        for owner in self.owners:
            owner.requests  # noqa: B018

    def _check_possible(self) -> None:
        for name, request in self.requests.items():
            if request.over:
                raise RefusedError(f"{name}: {request.progress}; lab.federation(…) asks again")

    def _missing(self) -> str:
        names = [n for n, s in self.state.items() if s != "joined"]
        return f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} not accepted the partnership"

    @property
    def tape(self) -> SharedTape:
        """The session in which values are shared; begun when it is first needed, and anew once it has ended."""
        for owner in self.owners:
            owner.freshen()
        with self._lock:
            if self._tape is None or self._tape.dead is not None:
                self._renew()
                self._check_possible()
                if not self.accepted:
                    raise RefusedError(f"{self._missing()} yet: it is in the inbox there; federation.wait() waits for it")
                self._tape = SharedTape(self, self.owners).begin()
            return self._tape

    def share(self, thing: Any) -> Any:
        """Split among the owners: a tensor of yours, a pointer (its owner does it), or a module's parameters and buffers.

        Gives a `SharedTensor`, or the module. Raises UsageError for NaN, inf and numbers of ``terms.limit`` or more; of private
        values its owner alone sees that, and lets nothing be opened.
        """
        if isinstance(thing, torch.nn.Module):
            return _converted(thing, lambda t: t if isinstance(t, SharedTensor) else self._share(t))
        if isinstance(thing, FixedPrecision):
            thing = thing.of
        if not isinstance(thing, torch.Tensor):
            raise UsageError(f"share takes a tensor, a pointer or a module, not {type(thing).__name__}")
        return self._share(thing)

    def _share(self, given: torch.Tensor) -> SharedTensor:
        if isinstance(given, SharedTensor):
            raise UsageError("this tensor is shared already")
        if given.is_complex():
            raise UsageError("shares are of real numbers: share x.real and x.imag")
        if not isinstance(given, PointerTensor):
            tape = self.tape
            made = tape.make(shared_spec(given.shape), tape.deal(given.detach()))
            return _shared(made.requires_grad_(True) if given.requires_grad else made)
        session, bounds = given._session, given.label.bounds
        if session not in self.owners:
            raise UsageError(f"{session.owner} is not in this federation: {self.name}")
        if bounds is not None and max(abs(bounds[0]), abs(bounds[1])) >= self.terms.limit:
            raise UsageError(f"shares with {self.terms.fraction} bits after the point hold numbers below {self.terms.limit}, "
                             f"and these are in [{bounds[0]:g}, {bounds[1]:g}]: share x / 100, or fraction=10")  # fmt: skip
        index, tape = self.owners.index(session), self.tape
        label = Label("private", (f"{session.owner}: {', '.join(given.label.sources)}",))
        return _shared(tape.make(shared_spec(given.shape, label), tape.enter(given, index)))

    def close(self) -> None:
        """End the session in which values are shared; the partnership stays."""
        with self._lock:
            if self._tape is not None:
                self._tape.close()

    def leave(self) -> None:
        """End the partnership at every owner, and what runs in it."""
        self.close()
        for request in self.requests.values():
            if not request.over:
                request.cancel()

    # Display

    @printed
    def __repr__(self) -> str:
        lines = [f"Federation {self.name} ({self.id[:12]})", f"  {self.terms.badge}", f"  {ADVERSARY}"]
        lines += [f"  {n:<24} {STATES.get(s, s)}" for n, s in self.state.items()]
        return "\n".join([*lines, f"  for {printable(self.terms.purpose)}"])

    def _repr_html_(self) -> str:
        terms = self.terms
        rows = [(m.name, m.fingerprint, STATES.get(self.state[m.name], "")) for m in terms.members]
        pairs = [("purpose", terms.purpose), ("protocol", f"{terms.protocol.upper()}, {terms.security}"),
                 ("who must not collude", COLLUSION), ("adversary", ADVERSARY),
                 ("numbers", f"{terms.fraction} bits after the point, below {terms.limit}"),
                 ("id", self.id)]  # fmt: skip
        return cards.card(
            f"Federation {self.name}", cards.table(("owner", "fingerprint", "state"), rows, ""), cards.facts(pairs)
        )


def move(pointer: PointerTensor, owner: Session) -> PointerTensor:
    """See `PointerTensor.move`."""
    if isinstance(pointer, SharedTensor):
        raise UsageError("a shared value is at all owners; x.request(reason=…) asks them to open it")
    session = pointer._session
    if not isinstance(owner, Session) or owner is session:
        raise UsageError("a value moves to another owner that you are connected to: x.move(hospital_b)")
    both = [f for f in session.federations if owner in f.owners and f.accepted]
    if not both:
        raise UsageError(f"a value moves over the link of a federation: {session.owner} and {owner.owner} are together in none "
                         "that was accepted; lab.federation(a, b, c) asks them")  # fmt: skip
    live = [f for f in both if f._tape is not None and f._tape.dead is None]
    return (live or both)[0].tape.hand(pointer, owner)


def _shared(made: Recorded | torch.Tensor) -> SharedTensor:
    if not isinstance(made, SharedTensor):
        raise TypeError("a shared tape makes shared tensors")
    return made
