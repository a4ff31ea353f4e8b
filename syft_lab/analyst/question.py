"""A question that is not asked yet, and the dataset that it is about."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from syft_lab import wording
from syft_lab.analyst.result import Price, Result
from syft_lab.errors import PrivateValueError, UnsupportedError
from syft_lab.expr import Query
from syft_lab.printable import printed
from syft_lab.schema import Schema

if TYPE_CHECKING:
    from syft_lab.analyst.session import Session


@dataclass(frozen=True)
class Source:
    """A published dataset as the analyst knows it."""

    session: Session
    name: str
    version: int
    schema: Schema
    public: Mapping[str, Any]


class Question:
    """A query that is not asked yet: `price` it, then `release` it."""

    def __init__(self, source: Source, query: Query, name: str) -> None:
        self._source, self.query, self._name = source, query, name

    def price(self, epsilon: float, delta: float = 0.0) -> Price:
        """Cost and 95 % error as far as they are public; nothing is spent."""
        return self._source.session.price(self._source, self.query, epsilon, delta)

    def release(self, epsilon: float, delta: float = 0.0, *, block: bool = True) -> Result:
        """Ask, and spend ε: a `Result` with ``value``, ``accuracy`` and ``receipt``.

        Counts, sums and means take no δ, also where one is offered.

        The same question at the same cost is answered again for free. With ``block=False`` it does not wait. Raises
        BudgetError, RefusedError or FailedError; an interrupt stops the wait, not the question.
        """
        result = self._source.session.release(self._source, self.query, epsilon, delta, str(self), self._name)
        if block:
            result.get()
        return result

    def mock(self) -> Any:
        """The answer on the mock, without noise: to see its form."""
        return self._source.session.answer_on_mock(self._source, self.query, self._name)

    def _unanswered(self, *args: Any) -> NoReturn:
        raise PrivateValueError(f"this is a question, not yet an answer: {self}.release(epsilon=…) asks it")

    __bool__ = __float__ = __int__ = __len__ = __iter__ = __array__ = __round__ = __abs__ = __neg__ = _unanswered
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _unanswered
    __lt__ = __le__ = __gt__ = __ge__ = _unanswered

    @printed
    def __repr__(self) -> str:
        return f"<{self}: .price(epsilon=…) or .release(epsilon=…)>"

    @printed
    def __str__(self) -> str:
        return wording.question(self.query, self._source.name)


CELL = "a %%remote cell computes it where the owner approves"
_COUNTED = "count(), sum() and mean() are asked under differential privacy, and so are conditions: (frame.age > 65).mean()"
# What people know from pandas, and the way there is here.
ELSEWHERE = {
    **dict.fromkeys(
        ("median", "quantile", "std", "var", "sem", "skew", "kurt", "mad", "mode", "corr", "cov", "prod"),
        f"{_COUNTED}; {CELL}",
    ),
    **dict.fromkeys(("min", "max", "idxmin", "idxmax", "nlargest", "nsmallest", "rank", "argmax", "argmin"),
                    f"one row's value is one person's; {_COUNTED}"),
    **dict.fromkeys(("value_counts", "nunique"),
                    "frame.groupby(column).size() counts each declared category; .schema lists them"),
    **dict.fromkeys(("hist", "plot", "cut", "qcut", "histogram"),
                    "count between edges, such as frame.age.between(20, 29).sum(); the values of a groupby can be plotted"),
    **dict.fromkeys(("loc", "iloc", "at", "iat", "xs", "take", "tail"),
                    "frame[frame.age > 65] filters, frame['age'] is a column, .mock shows made-up rows"),
    **dict.fromkeys(("str", "dt", "cat"),
                    "texts are compared by == and .isin; the owner may publish what you need as a column of its own; "
                    f"{CELL}"),
    **dict.fromkeys(("describe", "info", "agg", "aggregate"), f".schema and .mock show what is public; {_COUNTED}"),
    **dict.fromkeys(("apply", "map", "transform", "pipe", "rolling", "shift", "cumsum", "diff", "merge", "join", "pivot_table",
                     "sort_values", "drop_duplicates", "sample", "iterrows", "itertuples", "query", "to_csv", "to_dict"),
                    f"columns are computed row by row with operators here; {CELL}"),
}  # fmt: skip


def no_attribute(thing: Any, name: str, columns: tuple[str, ...] = ()) -> NoReturn:
    """Refuse an attribute that a pointer does not have, saying what there is in its place, or the nearest of its own."""
    kind, told = type(thing).__name__, ascii(name)[:60]
    if name in ELSEWHERE:
        raise UnsupportedError(f"a {kind} has no {told}: {ELSEWHERE[name]}")
    there = [n for n in dir(type(thing)) if not n.startswith("_") and not refuses(type(thing), n)]
    near = difflib.get_close_matches(name, [*there, *columns], 1, 0.75)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UnsupportedError(f"a {kind} has no {told}: {hint}there are {', '.join(there)}")


def undone(told: str) -> Callable[..., NoReturn]:
    """A method that refuses, for an operator that pointers lack: ``told`` says what to write instead."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise UnsupportedError(told)

    return refuse


# What pandas' and numpy's options of aggregates may be here: what they are anyway.
_SAME = {"axis": ("None", "0", "'index'"), "skipna": ("True",), "numeric_only": ("False", "True"), "min_count": ("0",),
         "dtype": ("None",), "out": ("None",)}  # fmt: skip


def check_options(aggregate: str, options: Mapping[str, Any]) -> None:
    """Raises UnsupportedError where an aggregate is asked for with an option that changes it."""
    for name, value in options.items():
        if ascii(value) not in _SAME.get(name, ()):
            told = f"{ascii(name)[1:-1][:40]}={ascii(value)[:40]}"
            raise UnsupportedError(f"{aggregate}({told}) is not done here: {aggregate}() is over all rows, and skips nulls")


def refuses(kind: type, name: str) -> bool:
    """Whether an attribute is there only to say why it can't be had."""
    found = getattr(kind, name)
    return getattr(found.fget if isinstance(found, property) else found, "__annotations__", {}).get("return") == "NoReturn"
