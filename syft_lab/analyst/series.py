"""`PointerSeries`: a private column, or something computed from columns row by row, that reads like pandas."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from syft_lab import expr
from syft_lab.analyst.question import CELL, Question, check_options, no_attribute, undone
from syft_lab.errors import PrivateValueError, QueryError, UsageError
from syft_lab.expr import Lit, Node, Op, Query
from syft_lab.printable import printed

if TYPE_CHECKING:
    import pandas as pd

    from syft_lab.analyst.frame import PointerFrame

WAYS_OUT = "ask for a count, sum or mean and .release(epsilon=…) it, or look at .mock"
THERE = "there are + - * / // % and comparisons, & | ~ of conditions, .clip, .fillna, .isna, .isin, .between and .astype"
_UFUNCS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv, "power": operator.pow,
    "floor_divide": operator.floordiv, "remainder": operator.mod, "negative": operator.neg, "absolute": operator.abs,
    "matmul": operator.matmul, "equal": operator.eq, "not_equal": operator.ne, "less": operator.lt, "less_equal": operator.le,
    "greater": operator.gt, "greater_equal": operator.ge, "bitwise_and": operator.and_, "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor, "invert": operator.invert,
}  # fmt: skip


class PointerSeries:
    """A pointer to a private column, or to something computed from columns row by row."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, frame: PointerFrame, node: Node, name: str) -> None:
        self._frame, self._node, self.name = frame, expr.fitted(node), name
        self._type = expr.infer(self._node, frame._source.schema)

    def _op(self, name: str, *others: Any, reverse: bool = False) -> PointerSeries:
        nodes = [self._node, *(self._operand(o) for o in others)]
        return PointerSeries(self._frame, Op(name, tuple(reversed(nodes) if reverse else nodes)), self.name)

    def _operand(self, other: Any) -> Node:
        if isinstance(other, PointerSeries):
            return other._aligned(self._frame)
        return Lit(expr.check_literal(_constant(other)))

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

    def __pos__(self) -> PointerSeries:
        return self

    __pow__ = __rpow__ = undone("powers of a column are not computed here: write x * x for a square")
    __abs__ = undone(f"abs of a column is not computed here: {THERE}; {CELL}")
    __round__ = __floor__ = __ceil__ = __trunc__ = undone("a column is cut to whole numbers by .astype('int64') alone")
    __rfloordiv__ = __rmod__ = __divmod__ = __rdivmod__ = undone("// and % take a positive constant on the right of a column")
    __matmul__ = __rmatmul__ = undone("columns are not multiplied to one number: write (x * y).sum()")
    __setitem__ = __delitem__ = undone("a pointer is not changed in place: write frame = frame.assign(name=…)")

    def __array_ufunc__(self, function: Any, method: str, *given: Any, **options: Any) -> Any:
        """numpy's operators, which are ours; its other functions are refused."""
        if method != "__call__" or options or function.__name__ not in _UFUNCS:
            undone(f"numpy's {function.__name__} of a private column is not computed here: {THERE}; {CELL}")()
        return _UFUNCS[function.__name__](*(g if isinstance(g, PointerSeries) else _constant(g) for g in given))

    def __array_function__(self, function: Any, types: Any, given: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """``np.mean``, ``np.sum`` and ``np.clip`` of a column; others are refused."""
        name = function.__name__
        if name in ("mean", "sum", "clip") and given and given[0] is self:
            return getattr(self, name)(*given[1:], **options)
        if hasattr(type(self), name):
            undone(f"numpy's {name} of a private column is not computed here: {THERE}")()
        no_attribute(self, name)

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

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

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

    def clip(self, lower: float | None = None, upper: float | None = None) -> PointerSeries:
        """Values moved into [lower, upper], both given; this also declares the bounds that a sum or a mean needs."""
        if lower is None or upper is None:
            raise QueryError("clip takes both ends here, which are the bounds that a sum or a mean needs: .clip(0, 100)")
        return self._op("clip", lower, upper)

    def astype(self, dtype: Any) -> PointerSeries:
        """Numbers and booleans as "int64" (cut towards zero) or "float64"."""
        names = {"int": "int", "int64": "int", "float": "float", "float64": "float"}
        return self._op("cast", names.get(getattr(dtype, "__name__", str(dtype)), str(dtype)[:40]))

    def count(self, axis: Any = 0, **options: Any) -> Question:
        """How many values are not null."""
        return self._ask("count", options={"axis": axis, **options})

    def sum(self, axis: Any = 0, **options: Any) -> Question:
        """The sum of the values, each moved into its bounds; nulls are skipped."""
        return self._ask("sum", options={"axis": axis, **options})

    def mean(self, axis: Any = 0, **options: Any) -> Question:
        """The mean of the values, each moved into its bounds; nulls are skipped."""
        return self._ask("mean", options={"axis": axis, **options})

    def _ask(self, aggregate: Any, by: tuple[str, ...] = (), options: Mapping[str, Any] | None = None) -> Question:
        check_options(aggregate, options or {})
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
        raise PrivateValueError(f"the values of {self.name} are private; {WAYS_OUT}")

    def __bool__(self) -> bool:
        raise PrivateValueError(
            f"whether {self.name} holds is private, row by row: join conditions with & | ~ and brackets, "
            f"write .between for a range; to learn something, {WAYS_OUT}"
        )

    __len__ = __iter__ = __float__ = __int__ = __index__ = __array__ = __getitem__ = _private
    item = tolist = to_list = to_numpy = unique = _private

    @property
    def values(self) -> NoReturn:
        """Private: raises PrivateValueError."""
        self._private()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        no_attribute(self, name)

    @printed
    def __repr__(self) -> str:
        bounds = f", bounds {self._type.low:g} to {self._type.high:g}" if self._type.bounded else ""
        return f"PointerSeries {self.name} ({self._type.kind}{bounds}) of {self._frame._source.name}; private"


def _constant(value: Any) -> Any:
    """A number of numpy or torch as one of Python; raises QueryError for an array of many."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (ValueError, TypeError, RuntimeError):
        raise QueryError("a private column is computed with constants and columns of its own table, not with arrays") from None
