"""A question that is not asked yet, and the dataset that it is about."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from syft_lab.analyst.result import Price, Result
from syft_lab.errors import PrivateValueError, UnsupportedError
from syft_lab.expr import Query
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

    def __init__(self, source: Source, query: Query, about: str) -> None:
        self._source, self.query, self._about = source, query, about

    def price(self, epsilon: float, delta: float = 0.0) -> Price:
        """Cost and 95 % error as far as they are public; nothing is spent."""
        return self._source.session.price(self._source, self.query, epsilon, delta)

    def release(self, epsilon: float, delta: float = 0.0, *, block: bool = True) -> Result:
        """Ask, and spend ε: a `Result` with ``value``, ``accuracy`` and ``receipt``.

        Counts, sums and means take no δ, also where one is offered.

        The same question at the same cost is answered again for free. With ``block=False`` it does not wait. Raises
        BudgetError, RefusedError or FailedError; an interrupt stops the wait, not the question.
        """
        result = self._source.session.release(self._source, self.query, epsilon, delta, str(self), self._about)
        if block:
            result.get()
        return result

    def mock(self) -> Any:
        """The answer on the mock, without noise: to see its form."""
        return self._source.session.answer_on_mock(self._source, self.query, self._about)

    def _unanswered(self, *args: Any) -> NoReturn:
        raise PrivateValueError(f"this is a question, not yet an answer: {self}.release(epsilon=…) asks it")

    __bool__ = __float__ = __int__ = __len__ = __iter__ = __array__ = __round__ = _unanswered

    def __repr__(self) -> str:
        return f"<{self}: .price(epsilon=…) or .release(epsilon=…)>"

    def __str__(self) -> str:
        by = f" by {', '.join(self.query.by)}" if self.query.by else ""
        chosen = " of chosen rows" if self.query.filter is not None else ""
        return f"{self.query.aggregate} of {self._about}{by}{chosen} in {self._source.name}"


def no_attribute(thing: Any, name: str, columns: tuple[str, ...] = ()) -> NoReturn:
    """Refuse an attribute that a pointer does not have, naming those it has and the nearest of them."""
    there = [n for n in dir(type(thing)) if not n.startswith("_")]
    near = difflib.get_close_matches(name, [*there, *columns], 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UnsupportedError(f"a {type(thing).__name__} has no {ascii(name)[:60]}: {hint}there are {', '.join(there)}")
