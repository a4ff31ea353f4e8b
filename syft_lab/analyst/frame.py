"""Pointers to private tables that read like pandas: `PointerFrame`, and its groups.

Nothing here holds a private row. Each operation adds a node to a typed expression (`expr`) and checks it at once
against the published schema; only `Question.price` and `Question.release` talk to the owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from syft_lab import expr
from syft_lab.analyst.question import Question, Source, check_options, no_attribute, refuses, undone
from syft_lab.analyst.series import WAYS_OUT, PointerSeries
from syft_lab.cell import Use
from syft_lab.errors import PrivateSizeError, PrivateValueError, QueryError, UnsupportedError, UsageError
from syft_lab.expr import Col, Node, Op, Query
from syft_lab.printable import printed
from syft_lab.schema import Scalar
from syft_lab.widgets import cards

if TYPE_CHECKING:
    import pandas as pd

_NO_TABLE = undone("a whole table is not computed with: pick a column, such as frame['age'] + 1, or frame['age'].mean()")


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

    def _described(self) -> list[tuple[str, str, tuple[float, float] | None, tuple[Scalar, ...] | None]]:
        rows: list[tuple[str, str, tuple[float, float] | None, tuple[Scalar, ...] | None]] = []
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

    def to_tensor(self, columns: Sequence[str] | None = None) -> Any:
        """Numeric columns side by side as a `PointerTensor` of shape (rows, columns), float32; missing numbers are NaN.

        Only where the owner made the number of rows public, and of all rows: a filter's number of rows is private.
        """
        names = list(self._names if columns is None else [columns] if isinstance(columns, str) else columns)
        if self._chosen is not None:
            raise UsageError(
                "a filtered frame has a private number of rows; take the tensor of the whole, and use torch.where with a mask"
            )
        for name in names:
            if name not in self._names or name in self._made:
                raise UsageError(
                    f"{ascii(name)[:80]} is no published column; there are: "
                    + ", ".join(n for n in self._names if n not in self._made)
                )
        return self._source.session.tensor(self._source, names)

    def count(self, axis: Any = 0, **options: Any) -> Question:
        """How many rows there are."""
        check_options("count", {"axis": axis, **options})
        return self._question(Query("count", None, self._chosen), "rows")

    def groupby(self, by: str | PointerSeries | Sequence[str | PointerSeries]) -> PointerGroupBy:
        """Group by one or two columns with declared categories; every declared group is answered, empty ones too."""
        one = isinstance(by, str | PointerSeries) or not isinstance(by, Iterable)
        names = tuple(map(self._key, [by] if one else by))
        if not names:
            raise QueryError("group by one or two columns with declared categories; none is named")
        for name in names:
            if name in self._made:
                raise QueryError(f"{name} is computed; group by a published column with declared categories")
        Query("count", None, None, names).check(self._source.schema)
        return PointerGroupBy(self, names)

    def _key(self, by: Any) -> str:
        node = by._aligned(self) if isinstance(by, PointerSeries) else None
        if isinstance(node, Col):
            return node.name
        if not isinstance(by, str):
            raise QueryError("group by one or two published columns with declared categories, by name: frame.groupby('ward')")
        return by

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
            raise PrivateValueError(f"rows of a private table can't be taken by position; {WAYS_OUT}")
        raise UsageError("index a pointer with a column name, a list of names, or a condition such as frame.age > 65")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._names:
            return self[name]
        if hasattr(PointerSeries, name) and not refuses(PointerSeries, name):
            raise UnsupportedError(f"a PointerFrame has no {name!r}: pick a column first, frame[column].{name}")
        no_attribute(self, name, self._names)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __floordiv__ = __mod__ = (
        _NO_TABLE
    )
    __neg__ = __abs__ = __invert__ = __pow__ = __round__ = __matmul__ = __and__ = __or__ = __xor__ = _NO_TABLE
    __lt__ = __le__ = __gt__ = __ge__ = __array_ufunc__ = __array_function__ = _NO_TABLE
    __setitem__ = __delitem__ = undone("a pointer is not changed in place: write frame = frame.assign(name=…)")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), where the owner made the number of rows public and no filter is set."""
        rows = self._source.public["rows"]
        if rows is None or self._chosen is not None:
            raise PrivateSizeError("the number of rows is private; ask frame.count().release(epsilon=…)")
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

    def use(self, name: str = "") -> Use:
        """The frame as a cell reads it, under ``name``; raises UsageError for computed columns, which a cell can compute."""
        made = [n for n in self._names if n in self._made]
        if made:
            raise UsageError(f"{made[0]} is computed: compute it inside the cell, on the whole table or on chosen rows")
        every = tuple(c.name for c in self._source.schema.columns)
        if self._chosen is None and self._names == every and not name:
            return Use(self._source.name, self._source.version)
        return Use(self._source.name, self._source.version, name, self._chosen, () if self._names == every else self._names)

    def view(self) -> Any:
        """A widget to look at: the public schema and terms, and pages of the mock."""
        from syft_lab.widgets.pointer import PointerView

        source = self._source
        facts = [["at", f"{source.session.owner}, version {source.version}"], ["protects", _unit(source)],
                 ["population", source.public["population"]],
                 ["rows", "private" if source.public["rows"] is None else str(source.public["rows"])],
                 ["filter", "chosen rows only" if self._chosen is not None else ""],
                 ["description", source.public["description"]]]  # fmt: skip
        columns = [
            {"name": name, "kind": kind, "values": _may_be(bounds, categories)}
            for name, kind, bounds, categories in self._described()
        ]
        look = {"title": source.name, "facts": facts, "columns": columns}
        return PointerView(lambda: look, lambda: self.mock, lambda: repr(self))

    @printed
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
        chosen = expr.fitted(mask if self._chosen is None else Op("and", (self._chosen, mask)))
        if expr.infer(chosen, self._source.schema).kind != "bool":
            raise QueryError("a filter must be true or false for each row, such as frame.age > 65")
        return PointerFrame(self._source, self._names, chosen, self._made)

    def _question(self, query: Query, name: str) -> Question:
        query.check(self._source.schema)
        return Question(self._source, query, name)


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

    def count(self, **options: Any) -> Question:
        """Non-null values in each group."""
        return self._picked("count", options)

    def sum(self, **options: Any) -> Question:
        """Sum in each group."""
        return self._picked("sum", options)

    def mean(self, **options: Any) -> Question:
        """Mean in each group."""
        return self._picked("mean", options)

    def _picked(self, aggregate: str, options: Mapping[str, Any]) -> Question:
        if self._column is None:
            raise QueryError(f"pick a column first: frame.groupby(…)['age'].{aggregate}(); or size() to count rows")
        return self._column._ask(aggregate, self._by, options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._frame.columns:
            return self[name]
        no_attribute(self, name, tuple(self._frame.columns))

    @printed
    def __repr__(self) -> str:
        return f"PointerGroupBy of {self._frame._source.name} by {', '.join(self._by)}"


def _unit(source: Source) -> str:
    unit, k = source.public["privacy_unit"], source.schema.max_contributions
    return "each row" if unit == "row" else f"each {unit} with up to {k} rows"


def _may_be(bounds: tuple[float, float] | None, categories: tuple[Scalar, ...] | None) -> str:
    """What a column's values may be, in words."""
    if categories is not None:
        return ", ".join(map(str, categories[:12])) + (", …" if len(categories) > 12 else "")
    return "" if bounds is None else f"{bounds[0]:g} to {bounds[1]:g}"
