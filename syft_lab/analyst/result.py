"""`Result`, the one kind of future an analyst holds; `Price`, what a question would cost; `Account`, what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitTimeout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from syft_lab.budget.accountant import MICRO, plain
from syft_lab.errors import ConnectionLost, FailedError, LabError, NotYetError
from syft_lab.printable import printed
from syft_lab.receipt import Receipt
from syft_lab.widgets import cards

if TYPE_CHECKING:
    import pandas as pd

    from syft_lab.analyst.request import RemoteRequest
    from syft_lab.analyst.shared import Opening

Value = Any  # a number, an array, a tensor, a pandas Series or DataFrame


@dataclass(frozen=True)
class Released:
    """A released value with its 95 % error and receipt. Grouped values are pandas Series indexed by category.

    ``interval`` is (low, high) where the value does not lie in its middle; ``notes`` say what the answer leaves out or moves.
    """

    value: Value
    accuracy: Value
    receipt: Receipt
    interval: tuple[Value, Value] | None = None
    notes: tuple[str, ...] = ()


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
    def interval(self) -> tuple[Value, Value] | None:
        """What the truth lies within in 95 of 100 releases, (low, high): numbers, or a Series each; None where it is exact.

        A count's is at least 0, and a mean's lies within the bounds of its column.
        """
        found = self._released()
        if found.interval is not None or found.accuracy is None:
            return found.interval
        return found.value - found.accuracy, found.value + found.accuracy

    @property
    def notes(self) -> tuple[str, ...]:
        """What the answer leaves out or moves by its form, such as values beyond the published bounds."""
        return self._released().notes

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
            raise NotYetError(f"not there after {timeout:g} s, and it goes on ({self.progress}): wait again later") from None
        except CancelledError:
            raise ConnectionLost("this result was cancelled; ask the same again: what was answered is free") from None
        if request is not None and request.broke and not error.details:
            error = FailedError(str(error), str(request.rerun()))
        raise error

    def __await__(self) -> Generator[Any, None, Value]:
        released: Released = yield from asyncio.wrap_future(self._future).__await__()
        return released.value

    @printed
    def __repr__(self) -> str:
        if not self._future.done():
            return f"<Result of {self._about}: {self.progress}>"
        error = self.exception()
        if error is not None or self._future.cancelled():
            return f"<Result of {self._about}: {error or 'cancelled'}>"
        found = self._released()
        if found.accuracy is None:
            return f"{found.value}\n{found.receipt.details['guarantee']}"
        shown = _display(found)
        if hasattr(shown, "to_frame"):
            low, high = self._ends()
            text = shown.to_frame(shown.name or "value").assign(low=low, high=high).to_string()
            return "\n".join([text, f"low to high: 95 %; {found.receipt.details['guarantee']}", *found.notes])
        return "\n".join([f"{shown}", f"{self._within(found)} (95 %), {found.receipt.details['guarantee']}", *found.notes])

    def _ends(self) -> tuple[Value, Value]:
        return self.interval or (None, None)

    def _within(self, found: Released) -> str:
        """The 95 % error of one number: ±, or from low to high where the value is not in the middle."""
        if found.interval is None:
            return f"± {_short(found.accuracy)}"
        return f"{_short(found.interval[0])} to {_short(found.interval[1])}"

    def _repr_html_(self) -> str:
        if not self._future.done():
            return cards.card(self._about, cards.note(self.progress))
        error = self.exception()
        if error is not None or self._future.cancelled():
            return cards.card(self._about, cards.note(str(error or "cancelled"), warn=True))
        found = self._released()
        details, shown = found.receipt.details, _display(found)
        if found.accuracy is None:
            return cards.card(self._about, _shown(found.value), cards.note(str(details["guarantee"])))
        if hasattr(shown, "items"):
            low, high = self._ends()
            rows = [(_key(k), _short(v), f"{_short(low[k])} to {_short(high[k])}") for k, v in shown.items()]
            body = cards.table((" / ".join(str(n) for n in shown.index.names), "value", "95 % interval"), rows, "no groups")
        else:
            body = cards.facts([("value", _short(shown)), ("95 % interval", self._within(found))])
        said = cards.note(f"{details['guarantee']}; {details['neighbours']}")
        return cards.card(self._about, body, *map(cards.note, found.notes), said)


def _display(found: Released) -> Value:
    """The value as it is shown: a noisy count below 0 as 0. Sums over counts stay unbiased, as the value keeps its sign."""
    said = found.receipt.details.get("value")
    if not isinstance(said, dict) or said.get("aggregate") != "count":
        return found.value
    return found.value.clip(lower=0) if hasattr(found.value, "clip") else max(found.value, 0)


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
    about: str = ""

    @printed
    def __repr__(self) -> str:
        fits = "" if self.epsilon <= self.left else "; that is more than is left"
        policy = "runs without a click" if self.allowed else self.why
        about = f"{self.about}: " if self.about else ""
        cost = f"{about}costs ε = {self.epsilon:g} of {self.left:g} left{fits}"
        return f"{cost}; 95 % error {self._error()}; {policy}"

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
        return cards.card(f"Price of {self.about}" if self.about else "Price", cards.facts(pairs), *warning)


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

    @printed
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
