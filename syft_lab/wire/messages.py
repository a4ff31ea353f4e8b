"""The protocol on one page: every message, as docs/protocol.md lists them.

Frozen dataclasses; a field's annotation is its type on the wire (``str``, ``int``, ``bytes``, ``list[...]``), and
`codec` checks it. ``payload`` is not a field of the header: it travels as raw frames behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

VERSIONS = (1,)


@dataclass(frozen=True)
class Message:
    """Base of all messages. ``kind`` is the name on the wire; ``max_payload`` the bytes of payload it may carry."""

    kind: ClassVar[str] = ""
    max_payload: ClassVar[int] = 0


@dataclass(frozen=True)
class Hello(Message):
    """First message of a known key; ``head`` is JSON of the last signed head held, or empty."""

    kind = "hello"
    versions: list[int]
    software: str
    head: bytes = b""


@dataclass(frozen=True)
class Welcome(Message):
    """The owner's card and head, with the proof that its log continues the head that was sent."""

    kind = "welcome"
    version: int
    owner: bytes
    head: bytes
    proof: list[bytes]
    restored: list[bytes] = field(default_factory=list)
    next_curve: str = ""
    next_signature: bytes = b""


@dataclass(frozen=True)
class Enrol(Message):
    """The one message that an invitation's key may send: the long-term keys, signed."""

    kind = "enrol"
    versions: list[int]
    software: str
    curve: str
    signing: str
    signature: bytes


@dataclass(frozen=True)
class Enrolled(Message):
    """The analyst's name and role at this owner."""

    kind = "enrolled"
    version: int
    analyst: str
    role: str


@dataclass(frozen=True)
class Ping(Message):
    """Answered by `Pong` with the same payload."""

    kind = "ping"
    max_payload = 1 << 30
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Pong(Message):
    """Answer to `Ping`."""

    kind = "pong"
    max_payload = 1 << 30
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Datasets(Message):
    """What may this analyst ask about?"""

    kind = "datasets"


@dataclass(frozen=True)
class Catalogue(Message):
    """The datasets open to this analyst, public facts only: one payload frame, a JSON list."""

    kind = "catalogue"
    max_payload = 64 << 20
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Mock(Message):
    """The mock of a dataset, please."""

    kind = "mock"
    dataset: str
    version: int


@dataclass(frozen=True)
class Table(Message):
    """A mock as one payload frame: JSON ``{column: [value, …]}``."""

    kind = "table"
    max_payload = 1 << 30
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Price(Message):
    """What would this query cost, and how exact would it be?"""

    kind = "price"
    dataset: str
    version: int
    query: bytes
    epsilon: int
    delta: int


@dataclass(frozen=True)
class Priced(Message):
    """JSON: cost, the public part of the error, the account, and what a policy would say."""

    kind = "priced"
    quote: bytes


@dataclass(frozen=True)
class Release(Message):
    """Run the query and release its value. ``request`` makes it idempotent; ``held`` is the size of the head held."""

    kind = "release"
    request: str
    dataset: str
    version: int
    query: bytes
    epsilon: int
    delta: int
    held: int


@dataclass(frozen=True)
class Released(Message):
    """A release: one payload frame, the JSON of its receipt. The value is in the entry that the receipt proves."""

    kind = "released"
    max_payload = 64 << 20
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Account(Message):
    """How much of my budgets is left?"""

    kind = "account"


@dataclass(frozen=True)
class Accounts(Message):
    """JSON list of this analyst's accounts, one a population."""

    kind = "accounts"
    accounts: bytes


@dataclass(frozen=True)
class Rotate(Message):
    """New keys of this analyst, signed by the old and by the new Ed25519 key."""

    kind = "rotate"
    curve: str
    signing: str
    old_signature: bytes
    new_signature: bytes


@dataclass(frozen=True)
class Rotated(Message):
    """The new keys hold; the old ones are refused."""

    kind = "rotated"


@dataclass(frozen=True)
class File(Message):
    """Ask the owner to run code: JSON terms, as docs/protocol.md has them. ``request`` makes it idempotent.

    ``follows`` is the number of the request that this one mends, or 0.
    """

    kind = "file"
    request: str
    terms: bytes
    follows: int


@dataclass(frozen=True)
class Filed(Message):
    """The request as this analyst may see it: JSON."""

    kind = "filed"
    request: bytes


@dataclass(frozen=True)
class Watch(Message):
    """My requests that changed after entry ``after``; if there are none, wait up to ``wait`` milliseconds for one."""

    kind = "watch"
    after: int
    wait: int


@dataclass(frozen=True)
class Requests(Message):
    """One payload frame: JSON ``{"at": entry, "requests": [...]}``, oldest first."""

    kind = "requests"
    max_payload = 64 << 20
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Collect(Message):
    """The released result of a request. ``held`` is the size of the head held."""

    kind = "collect"
    request: str
    held: int


@dataclass(frozen=True)
class Collected(Message):
    """Three payload frames: the JSON of the receipt, the salt of its commitment, the values as `syft_lab.values` has them."""

    kind = "collected"
    max_payload = 1 << 30
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Cancel(Message):
    """Take a request back; answered by `Filed`."""

    kind = "cancel"
    request: str


@dataclass(frozen=True)
class Comment(Message):
    """Say something about a request of one's own; answered by `Filed`."""

    kind = "comment"
    request: str
    text: str


@dataclass(frozen=True)
class Run(Message):
    """Run a plan on values that the owner holds for this session (``space``). Two frames: JSON ``{"inputs", "outputs", "free",
    "plan": digest}``, and the plan, which is empty where the owner has it. ``number`` counts a session's messages from 1."""  # noqa: D209

    kind = "run"
    max_payload = 32 << 20
    space: str
    number: int
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Ran(Message):
    """Taken: JSON ``{"lost": why}``, why some values came to nothing, where that is public; or empty."""

    kind = "ran"
    state: bytes


@dataclass(frozen=True)
class Put(Message):
    """A tensor of the analyst's, or a part of it from byte ``start`` on: one frame. Parts come in order."""

    kind = "put"
    max_payload = 8 << 20
    space: str
    number: int
    value: int
    dtype: str
    shape: list[int]
    start: int
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Load(Message):
    """Let ``value`` stand for a published tensor, or for columns of a table whose number of rows is public (JSON list)."""

    kind = "load"
    space: str
    number: int
    value: int
    dataset: str
    version: int
    columns: bytes


@dataclass(frozen=True)
class Fetch(Message):
    """Bytes of a public value from ``start`` on."""

    kind = "fetch"
    space: str
    number: int
    value: int
    start: int


@dataclass(frozen=True)
class Part(Message):
    """One frame: as many bytes as fit."""

    kind = "part"
    max_payload = 64 << 20
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Leave(Message):
    """Forget this session's values, and end what runs for it; answered by `Ran`."""

    kind = "leave"
    space: str


@dataclass(frozen=True)
class Noise(Message):
    """Release an aggregate under noise; answered by `Released`. ``held`` is the size of the head held."""

    kind = "noise"
    request: str
    space: str
    number: int
    value: int
    epsilon: int
    delta: int
    held: int


@dataclass(frozen=True)
class Ask(Message):
    """Ask the owner for the exact value; answered by `Filed`."""

    kind = "ask"
    request: str
    space: str
    number: int
    value: int
    reason: str


@dataclass(frozen=True)
class Propose(Message):
    """Ask the owner to take part in a federation: JSON terms, as `syft_lab.partnership` has them. Answered by `Filed`."""

    kind = "propose"
    request: str
    terms: bytes


@dataclass(frozen=True)
class Share(Message):
    """May a value be shared in a federation, or go to its member ``to``? It is kept as it is now, for one `Enter` or `Hand`."""

    kind = "share"
    space: str
    number: int
    value: int
    federation: str
    to: str = ""


@dataclass(frozen=True)
class Shared(Message):
    """It may; ``token`` names it."""

    kind = "shared"
    token: str


@dataclass(frozen=True)
class Gather(Message):
    """Begin a session in a federation: the first message of its space."""

    kind = "gather"
    space: str
    number: int
    federation: str


@dataclass(frozen=True)
class Gathered(Message):
    """What this owner's party uses in the session, signed: JSON ``{"curve", "host", "ports", "signature"}``."""

    kind = "gathered"
    offer: bytes


@dataclass(frozen=True)
class Meet(Message):
    """The offers of all parties, in their order: a JSON list. Answered by `Ran`, once this party lets the others in."""

    kind = "meet"
    space: str
    number: int
    offers: bytes


@dataclass(frozen=True)
class Join(Message):
    """All have met: connect, and agree on fresh masks. Answered by `Ran`."""

    kind = "join"
    space: str
    number: int


@dataclass(frozen=True)
class Deal(Message):
    """The two shares that a party gets of a tensor of the analyst's, one after the other as int64, from byte ``start`` on."""

    kind = "deal"
    max_payload = 8 << 20
    space: str
    number: int
    value: int
    shape: list[int]
    start: int
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Enter(Message):
    """A value of the owner ``member`` becomes shares. ``token`` names it there; the others know its shape alone."""

    kind = "enter"
    space: str
    number: int
    value: int
    member: int
    shape: list[int]
    token: str


@dataclass(frozen=True)
class Expect(Message):
    """Would the owner take in a value of the member ``source``, as ``value`` of this session? Answered by `Shared`."""

    kind = "expect"
    space: str
    number: int
    value: int
    federation: str
    source: int


@dataclass(frozen=True)
class Hand(Message):
    """A value of the owner ``member`` goes to the owner ``to``, as it is; the tokens name what each of the two agreed to."""

    kind = "hand"
    space: str
    number: int
    member: int
    to: int
    dtype: str
    shape: list[int]
    given: str
    taken: str


@dataclass(frozen=True)
class Log(Message):
    """For whoever may read the journal: its entries from ``start`` on, as many as fit."""

    kind = "log"
    start: int


@dataclass(frozen=True)
class Logged(Message):
    """One payload frame: a part of an exported journal, as `syft_lab.study` has it."""

    kind = "logged"
    max_payload = 64 << 20
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Manage(Message):
    """The owner's own key, or somebody with the right: JSON ``{"do", "request", "digest", "reason"}``."""

    kind = "manage"
    action: bytes


@dataclass(frozen=True)
class Managed(Message):
    """One payload frame: what came of it, as JSON."""

    kind = "managed"
    max_payload = 64 << 20
    payload: Sequence[bytes | memoryview] = ()


@dataclass(frozen=True)
class Refused(Message):
    """No, with the code of an error in `syft_lab.errors` and a text for people."""

    kind = "refused"
    code: str
    text: str


Ordered = Run | Put | Load | Fetch | Noise | Ask | Share | Expect | Gather | Meet | Join | Deal | Enter | Hand
KINDS: Mapping[str, type[Message]] = {kind.kind: kind for kind in Message.__subclasses__()}
ANSWERS: Mapping[type[Message], type[Message]] = {
    Hello: Welcome, Enrol: Enrolled, Ping: Pong, Datasets: Catalogue, Mock: Table, Price: Priced, Release: Released,
    Account: Accounts, Rotate: Rotated, File: Filed, Watch: Requests, Collect: Collected, Cancel: Filed, Comment: Filed,
    Run: Ran, Put: Ran, Load: Ran, Fetch: Part, Leave: Ran, Noise: Released, Ask: Filed, Propose: Filed, Share: Shared,
    Gather: Gathered, Meet: Ran, Join: Ran, Deal: Ran, Enter: Ran, Expect: Shared, Hand: Ran, Log: Logged, Manage: Managed,
}  # fmt: skip
