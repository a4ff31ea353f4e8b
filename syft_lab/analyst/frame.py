"""Pointers to private tables that read like pandas: `PointerFrame`, `PointerSeries`, and the `Question` they become.

Nothing here holds a private row. Each operation adds a node to a typed expression (`expr`) and checks it at once
against the published schema; only `Question.price` and `Question.release` talk to the owner.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from syft_lab import expr
from syft_lab.analyst.result import Price, Result
from syft_lab.errors import PrivateValueError, QueryError, UnsupportedError, UsageError
from syft_lab.expr import Col, Lit, Node, Op, Query, Schema
from syft_lab.widgets import cards

if TYPE_CHECKING:
    import pandas as pd

    from syft_lab.analyst.session import Session

_WAYS_OUT = "ask for a count, sum or mean and .release(epsilon=…) it, or look at .mock"


@dataclass(frozen=True)
class Source:
    """A published dataset as the analyst knows it."""

    session: Session
    name: str
    version: int
    schema: Schema
    public: Mapping[str, Any]


class PointerFrame:
    """A pointer to a private table: schema, mock and questions, never a row.

    ``frame[mask]`` filters, ``frame["age"]`` or ``frame.age`` is a `PointerSeries`, ``frame.groupby("ward")`` groups by
    declared categories, ``frame.count()`` counts rows. Everything is a question until it is released.
    """

    def __init__(self, source: Source, names: tuple[str, ...], chosen: Node | None, made: Mapping[str, Node]) -> None:
        self._source, self._names, self._chosen, self._made = source, names, chosen, dict(made)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._names)

    @property
    def schema(self) -> pd.DataFrame:
        """Public facts about the columns: kind, bounds, categories."""
        import pandas as pd

        return pd.DataFrame(self._described(), columns=["column", "kind", "bounds", "categories"]).set_index("column")

    def _described(self) -> list[tuple[str, str, tuple[float, float] | None, tuple[expr.Scalar, ...] | None]]:
        rows: list[tuple[str, str, tuple[float, float] | None, tuple[expr.Scalar, ...] | None]] = []
        for name in self._names:
            found = expr.infer(self._node(name), self._source.schema)
            bounds = (found.low, found.high) if found.bounded and found.kind in expr.NUMERIC else None
            rows.append((name, found.kind, bounds, found.categories))
        return rows

    @property
    def dtypes(self) -> pd.Series[Any]:
        """Kinds of the columns under pandas' names."""
        names = {"int": "int64", "float": "float64", "bool": "bool", "text": "str"}
        return self.schema["kind"].map(names)

    @cached_property
    def mock(self) -> pd.DataFrame:
        """Made-up rows with the table's columns, filtered as this frame is: to look at and to test on."""
        from syft_lab.budget import queries

        rows = self._source.session.mock_of(self._source)
        return queries.evaluate(self._source.schema, {n: self._node(n) for n in self._names}, self._chosen, rows).to_pandas()

    def head(self, n: int = 5) -> pd.DataFrame:
        """The first rows of the *mock*; the table's own rows never leave their owner."""
        return self.mock.head(n)

    def count(self) -> Question:
        """How many rows there are."""
        return self._question(Query("count", None, self._chosen), "rows")

    def groupby(self, by: str | Sequence[str]) -> PointerGroupBy:
        """Group by one or two columns with declared categories; every declared group is answered, empty ones too."""
        names = (by,) if isinstance(by, str) else tuple(by)
        for name in names:
            if name in self._made:
                raise QueryError(f"{name} is computed; group by a published column with declared categories")
        Query("count", None, None, names).check(self._source.schema)
        return PointerGroupBy(self, names)

    def dropna(self, subset: str | Sequence[str] | None = None) -> PointerFrame:
        """Rows without nulls in the columns of ``subset`` (all by default)."""
        names = self._names if subset is None else (subset,) if isinstance(subset, str) else tuple(subset)
        mask = None
        for name in names:
            present = Op("not", (Op("is_null", (self._node(name),)),))
            mask = present if mask is None else Op("and", (mask, present))
        return self if mask is None else self._where(mask)

    def fillna(self, value: Any) -> PointerFrame:
        """Fill nulls: a mapping from column to constant, or one number for all numeric columns."""
        if not isinstance(value, Mapping):
            numeric = [n for n in self._names if expr.infer(self._node(n), self._source.schema).kind in expr.NUMERIC]
            value = dict.fromkeys(numeric, value)
        return self.assign(**{name: self[name].fillna(v) for name, v in value.items()})

    def assign(self, **columns: PointerSeries | Callable[[PointerFrame], PointerSeries]) -> PointerFrame:
        """A frame with computed columns added or replaced."""
        made = dict(self._made)
        for name, given in columns.items():
            series = given(self) if callable(given) else given
            if not isinstance(series, PointerSeries):
                raise UsageError(f"assign takes columns computed from this frame; {name} is {type(given).__name__}")
            made[name] = series._aligned(self)
        names = (*self._names, *(n for n in columns if n not in self._names))
        return PointerFrame(self._source, names, self._chosen, made)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return PointerSeries(self, self._node(key), key)
        if isinstance(key, PointerSeries):
            return self._where(key._aligned(self))
        if isinstance(key, list) and all(isinstance(k, str) for k in key):
            for name in key:
                self._node(name)
            return PointerFrame(self._source, tuple(key), self._chosen, self._made)
        if isinstance(key, slice | int):
            raise PrivateValueError(f"rows of a private table can't be taken by position; {_WAYS_OUT}")
        raise UsageError("index a pointer with a column name, a list of names, or a condition such as frame.age > 65")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._names:
            return self[name]
        _no_attribute(self, name, self._names)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), where the owner made the number of rows public and no filter is set."""
        rows = self._source.public["rows"]
        if rows is None or self._chosen is not None:
            raise PrivateValueError("the number of rows is private; ask frame.count().release(epsilon=…)")
        return int(rows), len(self._names)

    def __iter__(self) -> Any:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *(n for n in self._names if n.isidentifier())})

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._names)

    def __bool__(self) -> bool:
        raise PrivateValueError("a private table is neither true nor false; ask frame.count().release(epsilon=…)")

    def __repr__(self) -> str:
        source = self._source
        filtered = ", filtered" if self._chosen is not None else ""
        return (f"PointerFrame {source.name} v{source.version} at {source.session.owner}{filtered}\n"
                f"  protects {_unit(source)}; population {source.public['population']}\n{self.schema.to_string()}")  # fmt: skip

    def _repr_html_(self) -> str:
        source = self._source
        rows = [
            (name, kind, f"{bounds[0]:g} to {bounds[1]:g}" if bounds else "", ", ".join(map(str, (categories or ())[:12])))
            for name, kind, bounds, categories in self._described()
        ]
        about = [("description", source.public["description"])] if source.public["description"] else []
        about += [("at", f"{source.session.owner}, version {source.version}"), ("protects", _unit(source)),
                  ("population", source.public["population"]),
                  ("rows", "private" if source.public["rows"] is None else source.public["rows"])]  # fmt: skip
        title = f"{source.name}{' (filtered)' if self._chosen is not None else ''}"
        shown = cards.table(("column", "kind", "bounds", "categories"), rows, "no columns")
        return cards.card(title, cards.facts(about), shown, cards.note("private; .mock shows made-up rows"))

    def _node(self, name: str) -> Node:
        if name in self._made:
            return self._made[name]
        self._source.schema.column(name)
        return Col(name)

    def _where(self, mask: Node) -> PointerFrame:
        chosen = mask if self._chosen is None else Op("and", (self._chosen, mask))
        if expr.infer(chosen, self._source.schema).kind != "bool":
            raise QueryError("a filter must be true or false for each row, such as frame.age > 65")
        return PointerFrame(self._source, self._names, chosen, self._made)

    def _question(self, query: Query, about: str) -> Question:
        query.check(self._source.schema)
        return Question(self._source, query, about)


class PointerSeries:
    """A pointer to a private column, or to something computed from columns row by row."""

    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # numpy operators give way to ours

    def __init__(self, frame: PointerFrame, node: Node, name: str) -> None:
        self._frame, self._node, self.name = frame, node, name
        self._type = expr.infer(node, frame._source.schema)

    def _op(self, name: str, *others: Any, reverse: bool = False) -> PointerSeries:
        nodes = [self._node, *(self._operand(o) for o in others)]
        return PointerSeries(self._frame, Op(name, tuple(reversed(nodes) if reverse else nodes)), self.name)

    def _operand(self, other: Any) -> Node:
        if isinstance(other, PointerSeries):
            return other._aligned(self._frame)
        return Lit(expr.check_literal(other.item() if hasattr(other, "item") else other))

    def _aligned(self, frame: PointerFrame) -> Node:
        mine, theirs = self._frame, frame
        if mine._source.name != theirs._source.name or mine._source.session is not theirs._source.session:
            raise QueryError("the two pointers are to different tables, and rows can't be joined")
        if mine._chosen not in (None, theirs._chosen):
            raise QueryError("the two pointers are filtered differently; filter once, then compute on the result")
        return self._node

    def __add__(self, other: Any) -> PointerSeries:
        return self._op("add", other)

    def __radd__(self, other: Any) -> PointerSeries:
        return self._op("add", other, reverse=True)

    def __sub__(self, other: Any) -> PointerSeries:
        return self._op("sub", other)

    def __rsub__(self, other: Any) -> PointerSeries:
        return self._op("sub", other, reverse=True)

    def __mul__(self, other: Any) -> PointerSeries:
        return self._op("mul", other)

    def __rmul__(self, other: Any) -> PointerSeries:
        return self._op("mul", other, reverse=True)

    def __truediv__(self, other: Any) -> PointerSeries:
        return self._op("truediv", other)

    def __rtruediv__(self, other: Any) -> PointerSeries:
        return self._op("truediv", other, reverse=True)

    def __floordiv__(self, other: Any) -> PointerSeries:
        return self._op("floordiv", other)

    def __mod__(self, other: Any) -> PointerSeries:
        return self._op("mod", other)

    def __neg__(self) -> PointerSeries:
        return self._op("sub", 0, reverse=True)

    def __eq__(self, other: object) -> PointerSeries:  # type: ignore[override]
        return self._op("eq", other)

    def __ne__(self, other: object) -> PointerSeries:  # type: ignore[override]
        return self._op("ne", other)

    def __lt__(self, other: Any) -> PointerSeries:
        return self._op("lt", other)

    def __le__(self, other: Any) -> PointerSeries:
        return self._op("le", other)

    def __gt__(self, other: Any) -> PointerSeries:
        return self._op("gt", other)

    def __ge__(self, other: Any) -> PointerSeries:
        return self._op("ge", other)

    def __and__(self, other: Any) -> PointerSeries:
        return self._op("and", other)

    def __or__(self, other: Any) -> PointerSeries:
        return self._op("or", other)

    def __xor__(self, other: Any) -> PointerSeries:
        return self._op("xor", other)

    def __invert__(self) -> PointerSeries:
        return self._op("not")

    def isna(self) -> PointerSeries:
        """True where the value is null or NaN."""
        return self._op("is_null")

    def notna(self) -> PointerSeries:
        """True where there is a value."""
        return ~self.isna()

    isnull, notnull = isna, notna

    def fillna(self, value: Any) -> PointerSeries:
        """Put a constant in place of nulls."""
        return self._op("fill_null", value)

    def dropna(self) -> PointerSeries:
        """Without nulls; aggregates skip them anyway."""
        return PointerSeries(self._frame._where(self.notna()._node), self._node, self.name)

    def is_in(self, values: Iterable[Any]) -> PointerSeries:
        """True where the value is one of ``values``."""
        if isinstance(values, str):
            raise UsageError("is_in takes a list of values")
        return self._op("is_in", *values)

    isin = is_in

    def between(self, left: Any, right: Any, inclusive: str = "both") -> PointerSeries:
        """True where ``left <= value <= right``; ``inclusive`` as in pandas."""
        return self._op("between", left, right, inclusive)

    def clip(self, lower: float, upper: float) -> PointerSeries:
        """Values moved into [lower, upper]; this also declares the bounds that a sum or a mean needs."""
        return self._op("clip", lower, upper)

    def astype(self, dtype: Any) -> PointerSeries:
        """Numbers and booleans as "int64" (cut towards zero) or "float64"."""
        names = {"int": "int", "int64": "int", "float": "float", "float64": "float"}
        return self._op("cast", names.get(getattr(dtype, "__name__", str(dtype)), str(dtype)[:40]))

    def count(self) -> Question:
        """How many values are not null."""
        return self._ask("count")

    def sum(self) -> Question:
        """The sum of the values, each moved into its bounds; nulls are skipped."""
        return self._ask("sum")

    def mean(self) -> Question:
        """The mean of the values, each moved into its bounds; nulls are skipped."""
        return self._ask("mean")

    def _ask(self, aggregate: Any, by: tuple[str, ...] = ()) -> Question:
        query = Query(aggregate, self._node, self._frame._chosen, by)
        return self._frame._question(query, self.name)

    @property
    def mock(self) -> pd.Series[Any]:
        """The same column on the mock."""
        return self._frame.assign(**{self.name: self}).mock[self.name].rename(self.name)

    def head(self, n: int = 5) -> pd.Series[Any]:
        """The first values of the *mock*."""
        return self.mock.head(n)

    def _private(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise PrivateValueError(f"the values of {self.name} are private; {_WAYS_OUT}")

    __bool__ = __len__ = __iter__ = __float__ = __int__ = __index__ = __array__ = __getitem__ = _private
    item = tolist = to_list = to_numpy = unique = _private

    @property
    def values(self) -> NoReturn:
        """Private: raises PrivateValueError."""
        self._private()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        _no_attribute(self, name, ())

    def __repr__(self) -> str:
        bounds = f", bounds {self._type.low:g} to {self._type.high:g}" if self._type.bounded else ""
        return f"PointerSeries {self.name} ({self._type.kind}{bounds}) of {self._frame._source.name}; private"


class PointerGroupBy:
    """Groups by declared categories: pick a column, then aggregate; ``size()`` counts rows."""

    def __init__(self, frame: PointerFrame, by: tuple[str, ...], column: PointerSeries | None = None) -> None:
        self._frame, self._by, self._column = frame, by, column

    def __getitem__(self, name: str) -> PointerGroupBy:
        if not isinstance(name, str):
            raise QueryError("pick one column: frame.groupby('ward')['age'].mean()")
        return PointerGroupBy(self._frame, self._by, self._frame[name])

    def size(self) -> Question:
        """Rows in each group."""
        return self._frame._question(Query("count", None, self._frame._chosen, self._by), "rows")

    def count(self) -> Question:
        """Non-null values in each group."""
        return self._picked("count")

    def sum(self) -> Question:
        """Sum in each group."""
        return self._picked("sum")

    def mean(self) -> Question:
        """Mean in each group."""
        return self._picked("mean")

    def _picked(self, aggregate: str) -> Question:
        if self._column is None:
            raise QueryError(f"pick a column first: frame.groupby(…)['age'].{aggregate}(); or size() to count rows")
        return self._column._ask(aggregate, self._by)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._frame.columns:
            return self[name]
        _no_attribute(self, name, tuple(self._frame.columns))

    def __repr__(self) -> str:
        return f"PointerGroupBy of {self._frame._source.name} by {', '.join(self._by)}"


class Question:
    """A query that is not asked yet: `price` it, then `release` it."""

    def __init__(self, source: Source, query: Query, about: str) -> None:
        self._source, self.query, self._about = source, query, about

    def price(self, epsilon: float, delta: float = 0.0) -> Price:
        """Cost and 95 % error as far as they are public; nothing is spent."""
        return self._source.session.price(self._source, self.query, epsilon, delta)

    def release(self, epsilon: float, delta: float = 0.0, *, block: bool = True) -> Result:
        """Ask, and spend ε: a `Result` with ``value``, ``accuracy`` and ``receipt``.

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


def _unit(source: Source) -> str:
    unit, k = source.public["privacy_unit"], source.schema.max_contributions
    return "each row" if unit == "row" else f"each {unit} with up to {k} rows"


def _no_attribute(thing: Any, name: str, columns: tuple[str, ...]) -> NoReturn:
    there = [n for n in dir(type(thing)) if not n.startswith("_")]
    near = difflib.get_close_matches(name, [*there, *columns], 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UnsupportedError(f"a {type(thing).__name__} has no {ascii(name)[:60]}: {hint}there are {', '.join(there)}")
