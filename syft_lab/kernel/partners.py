"""An owner among others: partnerships that it accepted, and the sessions that its party takes part in.

    propose → (a person accepts) → share: may this value? → gather, meet, join → enter, deal → plans → ask: a part, decided here

A party is a child of this kernel (`executor.joint`). What the kernel keeps for itself is its signing key, with which it
vouches for the key of each run; the journal; and the decision about every part that leaves.
"""

from __future__ import annotations

import math
import secrets
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from syft_lab import canonical, values
from syft_lab.cell import Cell, Use
from syft_lab.errors import FailedError, RefusedError, StalePointerError, UsageError, WireError
from syft_lab.identity import Keys
from syft_lab.kernel import policy
from syft_lab.kernel.catalogue import Catalogue, dataset_of
from syft_lab.kernel.registry import Analyst
from syft_lab.kernel.requests.desk import Desk
from syft_lab.kernel.requests.rows import Row
from syft_lab.kernel.rulebook import Rulebook
from syft_lab.kernel.tensors import Seat, Tensors, as_array, one_frame
from syft_lab.partnership import RETURNS, VOUCHERS, Offer, Partnership, offers, parse, reached
from syft_lab.wire import messages as m

KEPT = 16
WHOLE = 1 << 62


class Lent(NamedTuple):
    """A value that may be shared, as it was when that was asked."""

    analyst: str
    federation: str
    data: bytes
    dtype: str
    shape: tuple[int, ...]
    source: str
    story: str
    to: str = ""
    datasets: tuple[str, ...] = ()


class Due(NamedTuple):
    """A value of a partner's that this owner takes in: into which session, under which number."""

    analyst: str
    federation: str
    seat: Seat
    value: int
    source: str


class Partners:
    """``hosts`` gives the interface that parties listen on, and the name by which partners reach this machine."""

    def __init__(
        self, name: str, keys: Keys, desk: Desk, catalogue: Catalogue, rulebook: Rulebook, tensors: Tensors,
        hosts: Callable[[], tuple[str, str]], now: Callable[[], Any],
    ) -> None:  # fmt: skip
        self._name, self._keys, self._desk, self._catalogue, self._rulebook = name, keys, desk, catalogue, rulebook
        self._tensors, self._hosts, self._now = tensors, hosts, now
        self._lent: OrderedDict[str, Lent] = OrderedDict()
        self._due: OrderedDict[str, Due] = OrderedDict()
        self._lock = threading.Lock()
        self._tasks: Mapping[type[m.Message], Callable[[Analyst, Seat, Any], m.Message]] = {
            m.Share: self._share, m.Gather: self._gather, m.Meet: self._meet, m.Join: self._join,
            m.Deal: self._deal, m.Enter: self._enter, m.Expect: self._expect, m.Hand: self._hand,
        }  # fmt: skip
        tensors.with_partners = lambda analyst, seat, message: self._tasks[type(message)](analyst, seat, message)
        desk.on_change.append(self._hear)

    def _hear(self, row: Row) -> None:
        """Who leaves a federation ends what runs in it."""
        if row.state in ("left", "expired") and self._desk.proposes(row):
            body = self._desk.step(row)
            why = f"the partnership with {self._name} was ended by {body['by']}" if "by" in body else (
                f"the time of the partnership with {self._name} is over")  # fmt: skip
            self._tensors.end(row.digest.removeprefix("sha256:"), row.analyst, why)

    def propose(self, analyst: Analyst, message: m.Propose) -> Row:
        """Take in a request for a partnership; raises UsageError where this owner is not in it, with this key.

        And where it is for another analyst, or for other keys of this one's.
        """
        terms = parse(message.terms)
        mine = next((m for m in terms.members if (m.name, m.signing) == (self._name, self._keys.public.signing)), None)
        if mine is None:
            raise UsageError(f"{self._name} is not in this partnership, or with another key than its own")
        if mine.analyst != analyst.keys.signing:
            raise UsageError(f"{self._name} knows you by another key than the one in these terms: lab.federation(a, b, c) "
                             "makes them with yours")  # fmt: skip
        return self._desk.propose(analyst, message.request, terms)

    def _joined(self, analyst: Analyst, federation: str) -> tuple[Partnership, Mapping[str, Any]]:
        """The terms that this owner accepted for this analyst, and what was open then; raises RefusedError."""
        _, terms, accepted = self._desk.joined(analyst.name, federation)
        if terms.members[terms.names.index(self._name)].analyst != analyst.keys.signing:
            raise RefusedError("this owner accepted the partnership for another key of yours than this one: "
                               "lab.federation(a, b, c) asks again")  # fmt: skip
        return terms, accepted

    # A value that is to be shared

    def _share(self, analyst: Analyst, seat: Seat, message: m.Share) -> m.Message:
        """Keep a value for one `Enter`, where the owner lets its datasets be shared with these partners."""
        if seat.joint:
            raise UsageError("this value is shared already")
        terms, accepted = self._joined(analyst, message.federation)
        found, _ = seat.call("describe", {"value": message.value})
        label = found["label"]
        if label["kind"] == "public":
            raise UsageError("this value is public: share it from your side, x.get().fix_prec().share(trio)")
        if message.to and (message.to not in terms.names or message.to == self._name):
            raise UsageError(f"{ascii(message.to)[:80]} is no partner in this federation")
        for source in label["sources"]:
            if message.to:
                self._may_move(analyst, source, message.to)
            else:
                self._may_share(analyst, source, terms, accepted["datasets"])
        data = b""
        if not found["lost"]:
            _, frames = seat.call("fetch", {"value": message.value, "start": 0, "length": WHOLE, "private": True})
            data = bytes(frames[0])
        token = secrets.token_hex(16)
        said = f"{self._name}: {', '.join(label['sources'])}"
        lent = Lent(analyst.name, message.federation, data, found["dtype"], tuple(found["shape"]), said, found["code"],
                    message.to, tuple(label["sources"]))  # fmt: skip
        return self._kept(self._lent, token, lent)

    def _kept(self, where: OrderedDict[str, Any], token: str, what: Any) -> m.Message:
        with self._lock:
            where[token] = what
            while len(where) > KEPT:
                where.popitem(last=False)
        return m.Shared(token)

    def _may_move(self, analyst: Analyst, source: str, to: str) -> None:
        """Raises RefusedError where no rule of the owner's hands a dataset to a partner: it will see it."""
        name, version = _dataset(source)
        self._catalogue.find(analyst, name, version)
        self._allowed("move", analyst, (name,), to, f'owner.policy.allow("move", dataset="{name}", partners=["{to}"])')

    def _allowed(self, kind: str, analyst: Analyst, datasets: tuple[str, ...], partner: str, line: str) -> None:
        case = policy.Case(kind, analyst.name, analyst.role, datasets, self._now(), partners=(partner,))
        decision = self._rulebook.decide(case)
        if isinstance(decision, policy.Refuse):
            raise RefusedError(decision.why)
        if not isinstance(decision, policy.Allow):
            raise RefusedError(f"no rule of {self._name} allows this; the owner can, with: {line}")

    def _expect(self, analyst: Analyst, seat: Seat, message: m.Expect) -> m.Message:
        """Note that a value of a partner's may come into an ordinary session, where the owner lets it."""
        if seat.joint:
            raise UsageError("a value moves into an ordinary session: pointer.move(owner)")
        terms, _ = self._joined(analyst, message.federation)
        if not 0 <= message.source < len(terms.names) or terms.names[message.source] == self._name:
            raise WireError("a value comes from another member")
        source = terms.names[message.source]
        self._allowed("receive", analyst, (), source, f'owner.policy.allow("receive", partners=["{source}"])')
        token = secrets.token_hex(16)
        return self._kept(self._due, token, Due(analyst.name, message.federation, seat, message.value, source))

    def _may_share(self, analyst: Analyst, source: str, terms: Partnership, accepted: list[str]) -> None:
        """Raises RefusedError where the owner's rules, or what was accepted, keep a dataset back."""
        name, version = _dataset(source)
        self._catalogue.find(analyst, name, version)
        partners = tuple(n for n in terms.names if n != self._name)
        case = policy.Case("share", analyst.name, analyst.role, (name,), self._now(), partners=partners)
        decision = self._rulebook.decide(case)
        if isinstance(decision, policy.Refuse):
            raise RefusedError(decision.why)
        if not isinstance(decision, policy.Allow) and name not in accepted:
            raise RefusedError(f"{name} was not open to you when {self._name} accepted the partnership; the owner can allow it "
                               f'with: owner.policy.allow("share", dataset="{name}")')  # fmt: skip

    # A session

    def _gather(self, analyst: Analyst, seat: Seat, message: m.Gather) -> m.Message:
        try:
            terms, _ = self._joined(analyst, message.federation)
        except RefusedError as error:  # nothing was begun that could go on
            raise StalePointerError(str(error)) from None
        index, (interface, reach) = terms.names.index(self._name), self._hosts()
        found, _ = seat.call("gather", {"index": index, "names": list(terms.names), "host": interface})
        seat.federation = message.federation
        offer = Offer(found["curve"], reach, dict(found["ports"]))
        return m.Gathered(canonical.dumps(offer.signed(self._keys, terms.id, message.space, index)))

    def _terms(self, analyst: Analyst, seat: Seat) -> Partnership:
        if not seat.federation:
            raise StalePointerError("this session began in no federation")
        return self._joined(analyst, seat.federation)[0]

    def _meet(self, analyst: Analyst, seat: Seat, message: m.Meet) -> m.Message:
        terms = self._terms(analyst, seat)
        offered = offers(message.offers, terms, message.space)
        index = terms.names.index(self._name)
        keys = [(o.curve, member.signing) for o, member in zip(offered, terms.members, strict=True)]
        facts = {"keys": keys, "addresses": reached(offered, index, _resolved)}
        return _ran(seat.call("meet", facts)[0])

    def _join(self, analyst: Analyst, seat: Seat, message: m.Join) -> m.Message:
        return _ran(seat.call("join", {"fraction": self._terms(analyst, seat).fraction})[0])

    def _deal(self, analyst: Analyst, seat: Seat, message: m.Deal) -> m.Message:
        part = one_frame(message.payload)
        _check_shape(message.shape)
        facts = {k: getattr(message, k) for k in ("value", "shape", "start")}
        return _ran(seat.call("deal", facts, [part])[0])

    def _enter(self, analyst: Analyst, seat: Seat, message: m.Enter) -> m.Message:
        terms = self._terms(analyst, seat)
        _check_shape(message.shape)
        if not 0 <= message.member < len(terms.members):
            raise WireError("a federation has no such member")
        owner = terms.names[message.member]
        facts = {"value": message.value, "owner": message.member, "shape": message.shape, "source": owner, "story": "",
                 "dtype": ""}  # fmt: skip
        if owner != self._name:
            return _ran(seat.call("enter", facts)[0])
        with self._lock:
            lent = self._lent.pop(message.token, None)
        if lent is None or (lent.analyst, lent.federation, lent.to) != (analyst.name, seat.federation, ""):
            raise UsageError("this value is not kept to be shared; share it again")
        if list(lent.shape) != message.shape:
            raise UsageError(f"the value that was kept to be shared has the shape {list(lent.shape)}")
        lost = not lent.data and math.prod(lent.shape) > 0
        data = bytes(4 * math.prod(lent.shape)) if lost else lent.data
        facts |= {"source": lent.source, "story": lent.story, "dtype": "float32" if lost else lent.dtype, "lost": lost}
        return _ran(seat.call("enter", facts, [data])[0])

    # What leaves

    def _hand(self, analyst: Analyst, seat: Seat, message: m.Hand) -> m.Message:
        """A value goes to a partner, as it is: the journal notes it before it does, as an exact release."""
        terms = self._terms(analyst, seat)
        _check_shape(message.shape)
        if not {message.member, message.to} <= set(range(len(terms.names))) or message.member == message.to:
            raise WireError("a value goes from one member to another")
        size = 1 + math.prod(message.shape) * _size(message.dtype)
        owner, to = terms.names[message.member], terms.names[message.to]
        facts, data = {"owner": message.member, "to": message.to, "size": size, "what": [message.dtype, message.shape]}, None
        if owner == self._name:
            data = self._given(analyst, seat, message, to, size)
        _, frames = seat.call("hand", facts, [] if data is None else [data])
        if to == self._name:
            self._taken(analyst, seat, message, owner, bytes(frames[0]))
        return m.Ran(b"")

    def _given(self, analyst: Analyst, seat: Seat, message: m.Hand, to: str, size: int) -> bytes:
        with self._lock:
            lent = self._lent.pop(message.given, None)
        about = (analyst.name, seat.federation, to, message.dtype, tuple(message.shape))
        if lent is None or (lent.analyst, lent.federation, lent.to, lent.dtype, lent.shape) != about:
            raise UsageError("this value is not kept to be moved; move it again")
        self._desk.moved(analyst.name, seat.federation, to, lent.datasets, lent.story)
        whole = len(lent.data) == size - 1
        return b"\1" + lent.data if whole else bytes(size)

    def _taken(self, analyst: Analyst, seat: Seat, message: m.Hand, owner: str, data: bytes) -> None:
        with self._lock:
            due = self._due.pop(message.taken, None)
        if due is None or (due.analyst, due.federation, due.source) != (analyst.name, seat.federation, owner):
            raise UsageError("this owner does not expect the value; move it again")
        facts = {"value": due.value, "dtype": message.dtype, "shape": message.shape, "source": f"{owner}, moved here"}
        due.seat.call("adopt", facts, [data[1:]] if data[:1] == b"\1" else [])

    def ask(self, analyst: Analyst, seat: Seat, message: m.Ask) -> Row:
        """The part of a value that this owner has, asked for: it is kept as it is now, and the owner decides about it."""
        terms = self._terms(analyst, seat)
        found, _ = seat.call("describe", {"value": message.value})
        if found["label"]["kind"] == "public" and found["lost"]:  # alike at all parties
            raise FailedError(found["lost"])
        if found["label"]["kind"] == "public":
            raise UsageError("this value is made of your own data: x.get() brings it back")
        _, frames = seat.call("open", {"value": message.value})  # whatever comes of it here: the partners do it too
        if math.prod(found["shape"]) * 8 > self._desk.settings.limits(analyst.role).output:
            raise UsageError(f"this value has {found['shape']} entries, more than an owner lets out; ask for less of it")
        data = bytes(frames[0])
        blob = _part(data, found["shape"]) if not found["lost"] else b""
        own = [s.removeprefix(f"{self._name}: ") for s in found["label"]["sources"] if s.startswith(f"{self._name}: ")]
        uses = [d for u in dict.fromkeys(u for s in own for u in s.split(", ")) if (d := dataset_of(u)) is not None]
        cell = Cell(found["code"], tuple(Use(*u) for u in uses), RETURNS, {}, message.reason)
        return self._desk.file(
            analyst, message.request, canonical.dumps(cell.to_json()), 0, (blob, found["lost"]), federation=terms.id
        )


def _part(data: bytes, shape: list[int]) -> bytes:
    """What an owner lets go of a value: the vouchers, which come first, and its masked share, as results have them."""
    size = 8 * math.prod(VOUCHERS)
    made = as_array(data[size:], "int64", shape), as_array(data[:size], "int64", VOUCHERS)
    return values.of_tensors(dict(zip(RETURNS, made, strict=True)))


def _ran(found: Any) -> m.Ran:
    return m.Ran(canonical.dumps(found))


def _check_shape(shape: list[int]) -> None:
    if len(shape) > 64 or not all(0 <= n < 1 << 40 for n in shape):
        raise WireError("a shape has at most 64 lengths, none below 0")


def _size(dtype: str) -> int:
    """Bytes of a number of this type."""
    if dtype not in _SIZES:
        raise WireError("a tensor that comes in has a dtype that pointers have")
    return _SIZES[dtype]


_SIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex64": 8, "complex128": 16, "int64": 8, "int32": 4,
          "int16": 2, "int8": 1, "uint8": 1, "bool": 1}  # fmt: skip


def _dataset(source: str) -> tuple[str, int]:
    """Name and version of a dataset that a value came from; raises RefusedError for what a partner handed over."""
    found = dataset_of(source)
    if found is None:
        raise RefusedError(f"this value came from {source.partition(',')[0]}, whose owner let it come here and no further")
    return found


def _resolved(host: str) -> str:
    """The address of a partner's machine; raises UsageError."""
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        raise UsageError(f"this owner's machine can't find a partner's, {ascii(host)[:100]}; tell its owner") from None
