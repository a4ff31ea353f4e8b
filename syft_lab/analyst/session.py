"""A session: one analyst at one owner. What people use: datasets, questions, requests; `link` keeps it connected."""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from syft_lab import canonical, state, wording
from syft_lab.analyst import result as results
from syft_lab.analyst.audit import Audit
from syft_lab.analyst.enrol import enrol
from syft_lab.analyst.filings import Filings
from syft_lab.analyst.frame import PointerFrame
from syft_lab.analyst.inbox import Inbox
from syft_lab.analyst.link import QUESTION_SECONDS, Link, json_of
from syft_lab.analyst.question import Source
from syft_lab.analyst.remote import Rerun, as_frame, harder, rerun
from syft_lab.analyst.request import RemoteRequest
from syft_lab.analyst.result import Accounts, Price, Released, Result
from syft_lab.budget import accountant
from syft_lab.cell import Cell, Use, tensor_mock
from syft_lab.errors import (
    InvitationError,
    LabError,
    RefusedError,
    StalePointerError,
    UsageError,
    VerificationError,
)  # fmt: skip
from syft_lab.expr import Query
from syft_lab.identity import Invitation, Trust, check_name
from syft_lab.printable import printed
from syft_lab.receipt import Head, Receipt
from syft_lab.schema import schema_from_json
from syft_lab.widgets import cards
from syft_lab.wire import messages as m
from syft_lab.wire.loop import LoopThread

if TYPE_CHECKING:
    from syft_lab.analyst.federation import Federation
    from syft_lab.analyst.shared import SharedTape
    from syft_lab.analyst.tape import SessionTape
    from syft_lab.partnership import Partnership

CONNECT_SECONDS = 2.5
IN_FLIGHT = 16
GROUP_SIZES = (100, 1_000, 10_000, 100_000)


def connect(target: str | Path, *, alias: str | None = None, timeout: float = CONNECT_SECONDS) -> Session:
    """Connect with an invitation file (the first time: enrols this machine's own keys), or by the owner's name.

    ``alias`` is the name to keep the connection under (default: the owner's name). Raises an error of the tree, with
    one clear line, within ``timeout`` seconds an address.
    """
    path = Path(target)
    if path.suffix == ".syft" or (str(target) not in connections() and path.is_file()):
        return _with_invitation(Invitation.read(path), alias, timeout)
    name = check_name(str(target), "the connection's name")
    folder = state.connection_folder(name)
    if not (folder / "trust.json").is_file():
        known = ", ".join(connections()) or "none yet"
        raise UsageError(f"no connection is called {name}; known are: {known}. The first time, give the invitation file")
    return _open(name, folder, timeout)


def connections() -> list[str]:
    """Names of the connections that this machine knows."""
    folder = state.home() / "connections"
    return sorted(p.parent.name for p in folder.glob("*/trust.json")) if folder.is_dir() else []


def _with_invitation(invitation: Invitation, alias: str | None, timeout: float) -> Session:
    name = check_name(alias or invitation.owner, "the connection's name")
    folder = state.connection_folder(name)
    if (folder / "trust.json").is_file():
        trust = Trust.load(folder)
        if trust.invitation == invitation.id:
            return _open(name, folder, timeout)  # used here before: the long-term keys take over
        if (trust.signing, trust.analyst) != (invitation.signing, invitation.analyst):
            raise UsageError(f"a connection {name} is to another owner or analyst; choose a name: %connect FILE --as NAME")
    if invitation.expired:
        raise InvitationError(f"this invitation expired on {invitation.expires[:10]}; ask the owner for a new one")
    loop = LoopThread(f"syft-enrol-{name}")
    try:
        loop.run(enrol(invitation, state.make_private(folder), timeout), timeout * len(invitation.addresses) + 5)
    finally:
        loop.stop()
    return _open(name, folder, timeout)


def _open(alias: str, folder: Path, timeout: float) -> Session:
    session = Session(alias, folder, timeout)
    try:
        session.reconnect()
    except BaseException:
        session.close()
        raise
    return session


class Session(Link):
    """A connection to one owner: ``session["patients"]`` is a `PointerFrame`. Made by `connect`."""

    def __init__(self, alias: str, folder: Path, timeout: float) -> None:
        super().__init__(alias, folder, timeout)
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)  # the rest wait here, rather than be told that the owner is busy
        self._catalogue: dict[str, dict[str, Any]] = {}
        self._mocks: dict[tuple[str, int], Any] = {}
        self._next_epsilon = 0.0
        self._filed = Filings(self, self._rerun)
        self._tape: SessionTape | None = None
        self.joint: weakref.WeakSet[SharedTape] = weakref.WeakSet()  # sessions in federations that go over this link
        self.federations: weakref.WeakSet[Federation] = weakref.WeakSet()  # that this owner was asked into, from here

    # Public facts

    @property
    def signing(self) -> str:
        """The owner's signing key, in hexadecimal digits: who it is, whatever it is called."""
        return self._trust.signing

    @property
    def own_signing(self) -> str:
        """Your own signing key at this owner, in hexadecimal digits; `rotate_keys` puts another in its place."""
        return self._keys.public.signing

    @property
    def environment(self) -> dict[str, str]:
        """Versions of what computes at the owner."""
        return dict(self._card.get("environment", {}))

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets open to you, asked anew."""
        self._refresh()
        return list(self._catalogue)

    @property
    def known_datasets(self) -> list[str]:
        """Names of the datasets open to you when last asked; never waits."""
        return list(self._catalogue)

    def __getitem__(self, name: str) -> Any:
        """A pointer to the dataset called ``name``, in its newest version: a `PointerFrame`, or a `PointerTensor`."""
        source = self.source(name)
        if "tensor" in source.public:
            return self.tensor(source)
        return PointerFrame(source, tuple(c.name for c in source.schema.columns), None, {})

    def source(self, name: str) -> Source:
        """What is public about the dataset called ``name``, in its newest version, asked anew."""
        if not isinstance(name, str):
            raise UsageError("name a dataset: session['patients']")
        self._refresh()
        if name not in self._catalogue:
            raise UsageError(f"no dataset {ascii(name)[:80]} is open to you at {self.owner}; open are: "
                             f"{', '.join(self._catalogue) or 'none'}")  # fmt: skip
        public = self._catalogue[name]
        return Source(self, name, public["version"], schema_from_json(public["schema"]), public)

    def budget(self) -> Accounts:
        """Your accounts at this owner: spent, reserved, left, and what the question priced last would take."""
        reply = self._ask(m.Account(), m.Accounts)
        return Accounts(self.owner, canonical.loads(reply.accounts), self._next_epsilon)

    @property
    def gauge(self) -> Any:
        """Dials of your accounts at this owner: spent, reserved, left, and exact releases; a click asks anew."""
        from syft_lab.widgets.budget import BudgetGauge

        empty = "the owner opened no account for you; ask for one"
        return BudgetGauge(self.owner, lambda: self.budget().gauges, empty, lambda: repr(self.budget()))

    # Questions

    def price(self, source: Source, query: Query, epsilon: float, delta: float) -> Price:
        """What a question would cost: see `Question.price`."""
        cost = accountant.cost(epsilon, delta)
        message = m.Price(source.name, source.version, query.canonical(), cost.epsilon, cost.delta)
        quote = canonical.loads(self._ask(message, m.Priced).quote)
        self._next_epsilon = cost.epsilon / accountant.MICRO
        accuracy, basis = quote["accuracy"], "of what is released"
        if accuracy is None:
            accuracy, basis = (
                self._error_by_size(source, query, quote["scales"]["mean"]),
                "in a group of so many rows, if values are as on the mock",
            )
        left = quote["account"]["available"]["epsilon_micro"] / accountant.MICRO
        delta = quote["delta_pico"] / accountant.PICO
        about = wording.question(query, source.name)
        return Price(self._next_epsilon, delta, accuracy, basis, left, quote["allowed"], quote["why"], about)

    def _error_by_size(self, source: Source, query: Query, scale: float) -> Any:
        """95 % error of a mean by the size of its group, for values whose mean lies where the mock's does."""
        import pandas as pd

        from syft_lab.budget import mechanisms, queries

        low, high = queries.bounds(query.check(source.schema))
        _, (mean,) = queries.exact(source.schema, replace(query, by=()), self.mock_of(source))
        share = 0.5 if mean is None else (mean - low) / (high - low)
        found = mechanisms.mean_interval([(share * n, (1 - share) * n) for n in GROUP_SIZES], scale)
        errors = [(high - low) * max(share - left, right - share) for left, right in found]
        return pd.Series(errors, index=pd.Index(GROUP_SIZES, name="rows"), name="accuracy")

    def release(self, source: Source, query: Query, epsilon: float, delta: float, about: str, name: str) -> Result:
        """Ask a question: see `Question.release`."""
        self.check_open()
        cost = accountant.cost(epsilon, delta)
        message = m.Release(secrets.token_hex(16), source.name, source.version, query.canonical(), cost.epsilon, cost.delta, 0)

        async def work() -> Released:
            async with self._in_flight:
                reply, sent = await self.persistently(message, m.Released)
            self._next_epsilon = 0.0
            return self._take(reply, message, sent, source, query, name)

        future: Future[Released] = asyncio.run_coroutine_threadsafe(work(), self._loop.loop)
        return Result(future, about)

    # Tensors

    @property
    def tape(self) -> SessionTape:
        """What is recorded for this owner's device; a new one once the owner has lost what it held. Needs torch."""
        try:
            from syft_lab.analyst.pointer import PointerTensor, install
            from syft_lab.analyst.tape import SessionTape
        except ImportError:
            raise UsageError("pointer tensors need torch: pip install 'syft-lab[tensors]'") from None
        self.check_open()
        self.freshen()
        if self._tape is None or self._tape.dead is not None:
            install()
            self._tape = SessionTape(self, PointerTensor)
        return self._tape

    def tensor(self, source: Source, columns: Sequence[str] = ()) -> Any:
        """A pointer to a published tensor, or to numeric columns of a table whose number of rows is public."""
        import torch

        from syft_lab.analyst.tape import Dataset
        from syft_lab.labels import rows
        from syft_lab.spec import DTYPES, Spec

        name, about = f"{source.name} v{source.version}", source.public.get("tensor")
        if about is not None:
            shape, low_high = tuple(about["shape"]), tuple(about["bounds"])
            kind, k = str(np.dtype(about["dtype"])), 1
            if kind not in DTYPES:
                raise UsageError(f"{source.name} is of {kind}, which pointers don't have; ask its owner for another type")
            dtype = DTYPES[kind]
        else:
            found = [source.schema.column(c) for c in columns]
            if not found or any(c.kind == "text" for c in found):
                raise UsageError("name columns of numbers: frame.to_tensor(['age', 'los_days'])")
            if source.public["rows"] is None:
                raise RefusedError(f"the number of rows of {source.name} is private, and a tensor would show it; use the "
                                   "table's own questions, or a %%remote cell")  # fmt: skip
            shape, k = (source.public["rows"], len(found)), source.schema.max_contributions
            limits = {c.bounds for c in found}
            low_high = limits.pop() if len(limits) == 1 else None  # type: ignore[assignment]
            dtype = torch.float32
        spec = Spec.of(torch.empty(shape, dtype=dtype, device="meta"), rows(name, k, low_high), 0)
        return self.tape.load(Dataset(source.name, source.version, tuple(columns)), spec)

    def tensor_of(self, dataset: Any) -> Any:
        """A pointer to a dataset in the version that a pointer came from; raises UsageError where it is withdrawn."""
        source = self.source(dataset.name)
        if source.version != dataset.version:
            raise UsageError(
                f"{dataset.name} is published in version {source.version} now, and this came from version {dataset.version}"
            )
        return self.tensor(source, dataset.columns)

    def search(self, words: str) -> list[str]:
        """Names of the datasets whose name, tags, description or columns hold all words."""
        wanted = words.lower().split()
        self._refresh()
        texts = {n: " ".join([n, d["description"], *d["tags"], *(c["name"] for c in d["schema"]["columns"])]).lower()
                 for n, d in self._catalogue.items()}  # fmt: skip
        return [n for n, text in texts.items() if all(w in text for w in wanted)]

    def check_release(self, reply: m.Released, sent: Head | None) -> tuple[Receipt, dict[str, Any]]:
        """The receipt of a release and what it says, checked against the head we held."""
        return self.check_receipt(json_of(reply), sent, "released")

    def propose(self, terms: Partnership) -> RemoteRequest:
        """Ask the owner into a federation; the same terms again are the same request, while they hold."""
        self.check_open()
        message = m.Propose(secrets.token_hex(16), canonical.dumps(terms.to_json()))
        found = self.adopt(self._ask(message, m.Filed))
        if found.digest != terms.digest:
            raise VerificationError("the owner filed other terms than these; tell the owner")
        return found

    def adopt(self, reply: m.Filed) -> RemoteRequest:
        """A request that the owner filed for us."""
        return self._filed.adopt(canonical.loads(reply.request))

    # Requests to run code

    @property
    def requests(self) -> list[RemoteRequest]:
        """Your requests at this owner, oldest first, asked anew; also those of other notebooks and days."""
        return self._filed.all()

    def request(self, number: int) -> RemoteRequest:
        """Your request with this number; raises UsageError."""
        for request in self.requests:
            if request.number == number:
                return request
        raise UsageError(f"you have no request {number} at {self.owner}")

    def file(self, cell: Cell, *, follows: int = 0) -> RemoteRequest:
        """File a cell as it is, without running it on the mock first; gives the request once the owner has it.

        ``follows`` is the number of your request that it mends. Asked again after a broken connection, it is filed once.
        """
        return self._filed.file(cell, follows)

    def _rerun(self, cell: Cell) -> Rerun:
        """See `RemoteRequest.rerun`."""
        mocks: dict[str, list[tuple[str, Any]]] = {}
        for use in cell.use:
            source = self.source(use.dataset)
            if "tensor" in source.public:
                tensor = self.stand_in(source)
                levels = [("on the mock", tensor), ("on one row of the mock", tensor[:1])]
            else:
                levels = [(what, as_frame(self._part(source, use, mock))) for what, mock in harder(self.mock_of(source))]
            mocks[use.variable] = levels
        shortest = min(map(len, mocks.values()))
        return rerun(cell, {name: levels[:shortest] for name, levels in mocks.items()})

    async def renew(self) -> None:
        """Ask which datasets and requests there are. On the loop."""
        found = await self.asking(m.Datasets(), m.Catalogue, QUESTION_SECONDS)
        self._catalogue = {d["name"]: d for d in json_of(found)}
        await self._filed.renew()

    # For those who decide, and those who check

    @property
    def inbox(self) -> Inbox:
        """For stewards: the requests of others at this owner."""
        return Inbox(self.owner, self._manage)

    def _manage(self, action: dict[str, str]) -> Any:
        reply = self._ask(m.Manage(canonical.dumps(action)), m.Managed, QUESTION_SECONDS)
        return canonical.loads(bytes(reply.payload[0]), limit=m.Managed.max_payload)

    @property
    def audit(self) -> Audit:
        """For auditors: the owner's journal, fetched and checked here."""

        def part(start: int) -> bytes:
            return bytes(self._ask(m.Log(start), m.Logged, QUESTION_SECONDS).payload[0])

        return Audit(self.owner, self._trust.keys, part,
                     lambda: None if self._trust.head is None else Head.from_json(self._trust.head))  # fmt: skip

    def _owner_started_anew(self) -> None:
        why = StalePointerError(f"the kernel of {self.owner} was restarted, and what it held for this session is gone")
        if self._tape is not None:
            self._tape.lose(why)
        for joint in list(self.joint):
            joint.lose(why)

    def _ending(self) -> list[m.Message]:
        self._filed.end()
        leaving: list[m.Message] = []
        for joint in list(self.joint):
            if joint.dead is None:
                leaving.append(m.Leave(joint.space))
            joint.end(StalePointerError(f"the session at {self.owner} was closed"))
            for lane in joint.lanes:
                if lane.session is self:
                    lane.close()
        if self._tape is not None:
            self._tape.close()
            leaving += [m.Leave(self._tape.space)] if self._tape.sent else []
        return leaving

    # Answers and mocks

    def _take(
        self, reply: m.Released, message: m.Release, sent: Head | None, source: Source, query: Query, name: str
    ) -> Released:
        """Check the receipt against what was asked and the head we held then, and unpack the value."""
        receipt, said = self.check_receipt(json_of(reply), sent, "released")
        asked = (self._trust.analyst, message.dataset, message.version, message.epsilon, canonical.loads(message.query))
        if asked != tuple(said.get(k) for k in ("analyst", "dataset", "version", "epsilon_micro", "query")):
            raise VerificationError("the receipt is about another question than this one; tell the owner")
        answer = results.check_answer(said.get("value"))
        self.took(receipt)
        value, accuracy = (results.as_value(answer, answer[k], name) for k in ("values", "accuracy"))
        ends = [results.as_value(answer, answer[k], name) for k in ("low", "high") if k in answer]  # none in older answers
        interval = (ends[0], ends[1]) if len(ends) == 2 else None
        return Released(value, accuracy, receipt, interval, tuple(wording.notes(query, source.schema)))

    def _part(self, source: Source, use: Use, mock: Any) -> Any:
        """The rows and columns of a mock that a cell reads."""
        from syft_lab.budget import queries
        from syft_lab.budget.tables import encode

        if use.filter is not None:
            mock = mock.filter(queries.passing(source.schema, use.filter, encode(source.schema, mock.lazy())))
        return mock[list(use.columns)] if use.columns else mock

    def stand_in(self, source: Source, use: Use | None = None) -> Any:
        """What stands for a dataset when a cell runs here: its mock as a pandas frame, or a torch tensor."""
        if "tensor" not in source.public:
            mock = self.mock_of(source)
            return as_frame(mock if use is None else self._part(source, use, mock))
        try:
            import torch
        except ImportError:
            raise UsageError(f"{source.name} is a tensor, and torch is not installed here: pip install torch") from None
        return torch.from_numpy(tensor_mock(source.public["tensor"]))

    def answer_on_mock(self, source: Source, query: Query, name: str) -> Any:
        """The answer on the mock, without noise: see `Question.mock`."""
        from syft_lab.budget import queries

        keys, values = queries.exact(source.schema, query, self.mock_of(source))
        return results.as_value({"by": list(query.by), "keys": keys}, list(values), name)

    def mock_of(self, source: Source) -> Any:
        """The mock of a dataset as polars, under its own column names; fetched once."""
        import polars as pl

        from syft_lab.budget.tables import STORED

        key = (source.name, source.version)
        if key not in self._mocks:
            columns = self._payload(m.Mock(*key), m.Table)
            try:
                made = {c.name: pl.Series(columns[c.name], dtype=STORED[c.kind], strict=True) for c in source.schema.columns}
                self._mocks[key] = pl.DataFrame(made)
            except (KeyError, TypeError, IndexError, pl.exceptions.PolarsError):
                raise LabError(f"the mock of {source.name} does not fit its schema; tell the owner") from None
        return self._mocks[key]

    # Display

    def _refresh(self) -> None:
        datasets = self._payload(m.Datasets(), m.Catalogue)
        self._catalogue = {d["name"]: d for d in datasets}

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._catalogue) or self.datasets

    def _facts(self) -> list[tuple[str, object]]:
        return [
            ("you are", f"{self._trust.analyst} ({self._card.get('role', 'unknown')})"),
            ("address", ", ".join(self._trust.addresses)),
            ("fingerprint", f"{self.fingerprint}: compare it with the owner"),
            ("isolation", self._card.get("isolation", "unknown")),
            ("datasets", ", ".join(f"{n} v{d['version']}" for n, d in self._catalogue.items()) or "none open to you"),
        ]

    @printed
    def __repr__(self) -> str:
        if self._closed:
            return f"<Session at {self.owner}: closed>"
        try:
            self._refresh()
        except LabError as error:
            return f"<Session at {self.owner}: {error}>"
        lines = [f"Connected to {self.owner}", *([f"  {self.warning}"] if self.warning else [])]
        lines += [f"  {k:<11}  {cards.visible(v)}" for k, v in self._facts()]
        return "\n".join([*lines, repr(self.budget())])

    def _repr_html_(self) -> str:
        if self._closed:
            return cards.card(self.owner, cards.note("closed; connect again"))
        try:
            self._refresh()
        except LabError as error:
            return cards.card(self.owner, cards.note(str(error), warn=True))
        warning = [cards.note(self.warning, warn=True)] if self.warning else []
        return cards.card(f"Connected to {self.owner}", *warning, cards.facts(self._facts())) + self.budget()._repr_html_()
