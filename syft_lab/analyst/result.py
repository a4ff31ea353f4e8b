"""`Result`, the one kind of future an analyst holds; `Price`, what a question would cost; `Account`, what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitTimeout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from syft_lab.budget.accountant import MICRO, plain
from syft_lab.errors import ConnectionLost, FailedError, LabError
from syft_lab.receipt import Receipt
from syft_lab.widgets import cards

if TYPE_CHECKING:
    import pandas as pd

    from syft_lab.analyst.request import RemoteRequest
    from syft_lab.analyst.shared import Opening

Value = Any  # a number, an array, a tensor, a pandas Series or DataFrame


@dataclass(frozen=True)
class Released:
    """A released value with its 95 % error and receipt. Grouped values are pandas Series indexed by category."""

    value: Value
    accuracy: Value
    receipt: Receipt


class Result:
    """A value that is on its way. ``value``, ``accuracy`` and ``receipt`` wait for it; ``await result`` works too.

    ``progress`` says how far it is. Interrupting a wait leaves the question running; the answer stays at the owner,
    and asking the same again is free.
    """

    def __init__(self, future: Future[Released], about: str, request: RemoteRequest | Opening | None = None) -> None:
        self._future = future
        self._about = about
        self.request = request  # the cell that it comes from, or those at a federation's owners; None for a DP answer

    def get(self, timeout: float | None = None) -> Value:
        """The value; waits ``timeout`` seconds at most (for ever by default: the link has time limits of its own)."""
        return self._released(timeout).value

    @property
    def value(self) -> Value:
        """The value: of a DP answer the noisy number, or a Series of one number a group; of a cell what it returned."""
        return self._released().value

    @property
    def accuracy(self) -> Value:
        """What the error stays within in 95 of 100 releases: a number, or a Series; None where the value is exact."""
        return self._released().accuracy

    @property
    def receipt(self) -> Receipt:
        """Signed proof of the release; ``result.receipt.verify()`` checks it offline."""
        return self._released().receipt

    def done(self) -> bool:
        """Whether the answer, or an error, is here."""
        return self._future.done()

    def cancel(self) -> bool:
        """Of a DP answer: stop waiting (what the owner has begun is paid for). Of a cell: take its request back.

        Gives False if it is done already.
        """
        if self.request is None or self._future.done():
            return self._future.cancel()
        self.request.cancel()
        return True

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        if self.request is not None:
            return self.request.progress
        return "done" if self._future.done() else "waiting for the owner"

    def exception(self) -> BaseException | None:
        """The error that came instead of a value, if it is done."""
        return self._future.exception() if self._future.done() and not self._future.cancelled() else None

    def _released(self, timeout: float | None = None) -> Released:
        try:
            return self._future.result(timeout)
        except FailedError as failed:
            error, request = failed, self.request
        except WaitTimeout:
            raise ConnectionLost(f"no answer within {timeout} s; the question goes on, ask for it again later") from None
        except CancelledError:
            raise ConnectionLost("this result was cancelled; ask the same again: what was answered is free") from None
        if request is not None and request.broke and not error.details:
            error = FailedError(str(error), str(request.rerun()))
        raise error

    def __await__(self) -> Generator[Any, None, Value]:
        released: Released = yield from asyncio.wrap_future(self._future).__await__()
        return released.value

    def __repr__(self) -> str:
        if not self._future.done():
            return f"<Result of {self._about}: {self.progress}>"
        error = self.exception()
        if error is not None or self._future.cancelled():
            return f"<Result of {self._about}: {error or 'cancelled'}>"
        found = self._released()
        if found.accuracy is None:
            return f"{found.value}\n{found.receipt.details['guarantee']}"
        return f"{found.value}\n± {_short(found.accuracy)} (95 %), {found.receipt.details['guarantee']}"

    def _repr_html_(self) -> str:
        if not self._future.done():
            return cards.card(self._about, cards.note(self.progress))
        error = self.exception()
        if error is not None or self._future.cancelled():
            return cards.card(self._about, cards.note(str(error or "cancelled"), warn=True))
        found = self._released()
        details = found.receipt.details
        if found.accuracy is None:
            return cards.card(self._about, _shown(found.value), cards.note(str(details["guarantee"])))
        if hasattr(found.value, "items"):
            rows = [(_key(k), _short(v), f"± {_short(found.accuracy[k])}") for k, v in found.value.items()]
            shown = cards.table((" / ".join(str(n) for n in found.value.index.names), "value", "95 % error"), rows, "no groups")
        else:
            shown = cards.facts([("value", _short(found.value)), ("95 % error", f"± {_short(found.accuracy)}")])
        return cards.card(self._about, shown, cards.note(f"{details['guarantee']}; {details['neighbours']}"))


def _shown(value: Any) -> str:
    """An exact value as HTML: a table as pandas shows it, everything else as text."""
    if hasattr(value, "to_frame") or hasattr(value, "columns"):
        frame = value.to_frame() if hasattr(value, "to_frame") else value
        names = [*(str(n or "") for n in frame.index.names), *map(str, frame.columns)]
        rows = [[_key(k), *(_short(v) for v in row)] for k, row in zip(frame.index[:20], frame.to_numpy()[:20], strict=True)]
        more = cards.note(f"{len(frame)} rows; the first 20 are shown") if len(frame) > 20 else ""
        return cards.table([" / ".join(names[: frame.index.nlevels]), *names[frame.index.nlevels :]], rows, "no rows") + more
    return cards.text(str(value))


@dataclass(frozen=True)
class Price:
    """What a question would cost, and how exact its answer would be, before anything is spent.

    ``accuracy`` is the 95 % error where it is public; for a mean it depends on the size of the group, and is what it
    would be for groups as large as the mock's (``basis`` says which).
    """

    epsilon: float
    delta: float
    accuracy: Value
    basis: str
    left: float
    allowed: bool
    why: str

    def __repr__(self) -> str:
        fits = "" if self.epsilon <= self.left else "; that is more than is left"
        policy = "runs without a click" if self.allowed else self.why
        return (f"costs ε = {self.epsilon:g} of {self.left:g} left{fits}; 95 % error {self._error()}; {policy}")  # fmt: skip

    def _error(self) -> str:
        if not hasattr(self.accuracy, "items"):
            return f"± {_short(self.accuracy)} ({self.basis})"
        sizes = ", ".join(f"± {_short(error)} for {rows:,} rows".replace(",", " ") for rows, error in self.accuracy.items())
        return f"{sizes} ({self.basis})"

    def _repr_html_(self) -> str:
        pairs = [
            ("cost", f"ε = {self.epsilon:g}" + (f", δ = {self.delta:g}" if self.delta else "")),
            ("left for you", f"ε = {self.left:g}"),
            ("95 % error", self._error()),
            ("policy", "runs without a click" if self.allowed else self.why),
        ]
        warning = [cards.note("this is more than is left", warn=True)] if self.epsilon > self.left else []
        return cards.card("Price", cards.facts(pairs), *warning)


class Accounts:
    """An analyst's accounts at one owner: gauges of what is spent, reserved and left, one a population."""

    def __init__(self, owner: str, accounts: list[dict[str, Any]], next_epsilon: float = 0.0) -> None:
        self.owner = owner
        self.gauges = [(_gauge(a, next_epsilon), int(a.get("exact", 0))) for a in accounts]
        self._gauges = [g for g, _ in self.gauges]

    @property
    def left(self) -> dict[str, float]:
        """ε left, by population."""
        return {g.label: g.left for g in self._gauges}

    @property
    def spent(self) -> dict[str, float]:
        """ε spent, by population."""
        return {g.label: g.spent for g in self._gauges}

    def __repr__(self) -> str:
        return "\n".join([f"Budget at {self.owner}", *(f"  {g.text()}" for g in self._gauges or ())]) + (
            "" if self._gauges else ": the owner opened no account for you; ask for one"
        )

    def _repr_html_(self) -> str:
        empty = cards.note("the owner opened no account for you; ask for one")
        return cards.card(f"Budget at {self.owner}", *([g.html() for g in self._gauges] or [empty]))


def _gauge(account: dict[str, Any], next_epsilon: float) -> cards.Gauge:
    cap, spent, reserved = (account[k]["epsilon_micro"] / MICRO for k in ("cap", "spent", "reserved"))
    available = account["available"]["epsilon_micro"]
    shared = f"all analysts together have {plain(available)} left" if available / MICRO < cap - spent - reserved else ""
    note = "; ".join(n for n in (shared, cards.exact_releases(account.get("exact", 0))) if n)
    return cards.Gauge(account["population"], cap, spent, reserved, next_epsilon, note)


def as_value(answer: dict[str, Any], values: list[Any], name: str) -> Value:
    """A number, or a Series indexed by the declared categories."""
    if not answer["by"]:
        return values[0]
    import pandas as pd

    keys = [tuple(k) for k in answer["keys"]]
    if len(answer["by"]) == 1:
        index: pd.Index[Any] = pd.Index([k[0] for k in keys], name=answer["by"][0])
    else:
        index = pd.MultiIndex.from_tuples(keys, names=answer["by"])
    whole = all(type(v) is int for v in values)
    return pd.Series(values, index=index, name=name, dtype="int64" if whole else "float64")


def check_answer(answer: Any) -> dict[str, Any]:
    """``answer`` if it is a released value as the protocol has it; raises LabError."""
    if not isinstance(answer, dict) or not {"by", "keys", "values", "accuracy"} <= set(answer):
        raise LabError("the owner's answer has another form than a released value; tell the owner")
    return answer


def _key(key: Any) -> str:
    return " / ".join(str(k) for k in key) if isinstance(key, tuple) else str(key)


def _short(value: Any) -> str:
    if value is None:
        return "unknown"
    if hasattr(value, "items"):
        return ", ".join(f"{_key(k)}: {_short(v)}" for k, v in list(value.items())[:12])
    if isinstance(value, int | str):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
