"""`PointerSeries`: a private column, or something computed from columns row by row, that reads like pandas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from syft_lab import expr
from syft_lab.analyst.question import Question, no_attribute
from syft_lab.errors import PrivateValueError, QueryError, UsageError
from syft_lab.expr import Lit, Node, Op, Query
from syft_lab.printable import printed

if TYPE_CHECKING:
    import pandas as pd

    from syft_lab.analyst.frame import PointerFrame

WAYS_OUT = "ask for a count, sum or mean and .release(epsilon=…) it, or look at .mock"


class PointerSeries:
    """A pointer to a private column, or to something computed from columns row by row."""

    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # numpy operators give way to ours

    def __init__(self, frame: PointerFrame, node: Node, name: str) -> None:
        self._frame, self._node, self.name = frame, expr.fitted(node), name
        self._type = expr.infer(self._node, frame._source.schema)

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
