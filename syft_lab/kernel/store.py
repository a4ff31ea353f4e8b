"""Published tables on disk: what the owner gave is checked, cut to its contributions, and kept for the fast path.

Each version is one uncompressed Arrow file (0600) that polars maps into memory, laid out by `budget.tables`. The id
column is used once, here, and not kept. Files are written whole or not at all, before the journal's entry about them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from syft_lab import state
from syft_lab.budget.queries import passing
from syft_lab.budget.tables import STORED, encode, stored_names
from syft_lab.errors import StateError, UsageError
from syft_lab.expr import MAX_GROUPS, Node
from syft_lab.identity import read_secret, write_secret
from syft_lab.kernel import mock as mocks
from syft_lab.kernel.executor.data import Data, pack_table, pack_tensor
from syft_lab.kernel.resemblance import Likeness, likeness, normal, plain_text, shared_rows
from syft_lab.schema import Column, Kind, Scalar, Schema

MAX_ROWS = 10_000_000
TENSOR_TYPES = ("|b1", "|i1", "|u1", *(f"<{k}{n}" for k in "iu" for n in (2, 4, 8)), "<f4", "<f8")
SIGNED = {2: "<i4", 4: "<i8", 8: "<i8"}  # what unsigned numbers of so many bytes become: pointers have none of them
MAX_ROWS_LIMIT = 2**40
FRACTIONS = 3  # so few may be one person's slip
SMALL_TABLE = 10  # so few people may decide: who tries things out would be asked all the time
WHOLE: Mapping[Any, int] = {pl.Float16: 11, pl.Float32: 24}  # from which power of two on they don't tell whole numbers apart
LOOKED_AT = 1000  # rows that are looked at first, which spares most columns the others
SPELLINGS = (  # how texts may be written that another reader takes for no text: a pattern, or the format of a date
    ("numbers", r"^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity|nan)$"),
    ("numbers with a comma", r"^[+-]?\d+(,\d+)?$"),
    ("numbers with separators", r"^[+-]?(\d+|\d{1,3}([ .,'\x{a0}\x{202f}]\d{3})+)([.,]\d+)?$"),
    *(("dates", form) for form in ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y")),
    *(("true and false", rf"^({words})$") for words in ("true|false", "yes|no", "y|n", "t|f")),
)


@dataclass(frozen=True)
class Terms:
    """What the owner declares about a table when publishing it: see `Owner.publish`."""

    privacy_unit: str
    max_contributions: int
    bounds: Mapping[str, tuple[float, float]] | tuple[float, float] = field(default_factory=dict)
    categories: Mapping[str, Sequence[Scalar]] = field(default_factory=dict)
    max_rows: int = MAX_ROWS
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    mock_rows_public: bool = False


@dataclass(frozen=True)
class Prepared:
    """A table ready to be stored. ``dropped`` rows were beyond the contributions; ``skipped`` columns can't be queried.

    ``ids`` says whose each row is, written alike (None: each is somebody's own). A tensor is stored as a table of one flat
    column; ``tensor`` says its type, shape and bounds. ``remarks`` are about the data, for the owner's eyes.
    """

    schema: Schema
    table: pl.DataFrame
    mock: pl.DataFrame
    rows: int
    dropped: int
    skipped: tuple[str, ...]
    ids: pl.Series | None = None
    tensor: dict[str, Any] | None = None
    remarks: tuple[tuple[str, str], ...] = ()
    plain: pl.DataFrame | None = None  # its columns and its id under their own names
    unit: str = "row"


def prepare(data: Any, terms: Terms, mock: Any, key: bytes | None = None) -> Prepared:
    """Check and lay out a table or a tensor; raises UsageError that names the setting at fault.

    ``key`` decides which rows of a person stay where they have too many (32 bytes; random ones by default).
    """
    if isinstance(data, np.ndarray) or type(data).__module__.partition(".")[0] == "torch":
        return _prepare_tensor(data, terms, mock)
    frame, ids, skipped, remarks = _read(data, terms)
    names = frame.columns
    if not isinstance(terms.bounds, Mapping):
        raise UsageError("bounds of a table are by column: bounds={'age': (0, 110)}")
    if terms.privacy_unit != "row" and terms.privacy_unit not in names:
        raise UsageError(
            f"privacy_unit={terms.privacy_unit!r} is neither 'row' nor a column; the columns are: {', '.join(names[:20])}"
        )
    _check_contributions(terms)
    columns = [n for n in names if n == "row" or n != terms.privacy_unit]
    for setting, mapping in (("bounds", terms.bounds), ("categories", terms.categories), ("kinds", terms.kinds)):
        for name in mapping:
            if name not in columns:
                raise UsageError(f"{setting} names {ascii(name)[:80]}, which is no column that can be published")
    types = frame.schema  # read once: polars makes it anew each time
    described = tuple(_describe(n, types[n], terms) for n in columns)
    if not described:
        raise UsageError("the table has no column that can be published")
    schema = Schema(described, terms.max_contributions, terms.max_rows)
    keep = _limit_contributions(frame, ids, terms, key or secrets.token_bytes(32))
    kept, ids = frame.filter(keep), None if ids is None else ids.filter(keep)
    if kept.height > terms.max_rows:
        raise UsageError(f"the table has more rows than max_rows={terms.max_rows}; declare a larger public bound")
    table = encode(schema, kept.lazy()).collect().rechunk()
    # By name, which polars could take for a pattern. A mock is compared with all rows, those that were not kept among them.
    whole, published = (pl.DataFrame([rows.get_column(n) for n in columns]) for rows in (frame, kept))
    made = mocks.generate(schema) if _generated(mock) else _own_mock(schema, mock, data, whole, terms)
    remarks += _remarks(schema, frame, published, terms)
    return Prepared(
        schema,
        table,
        made,
        kept.height,
        frame.height - kept.height,
        tuple(skipped),
        ids,
        None,
        tuple(remarks),
        kept,
        terms.privacy_unit,
    )


def _generated(mock: Any) -> bool:
    return isinstance(mock, str) and mock == "generate"


def _prepare_tensor(data: Any, terms: Terms, mock: Any) -> Prepared:
    """A dense tensor, whose shape is public; each entry along the first axis is a row."""
    if isinstance(data, np.ma.MaskedArray):
        raise UsageError("a masked array would show what is under its mask; say what is to stand there: array.filled(0)")
    try:
        array = np.array(data.detach().cpu().numpy() if hasattr(data, "detach") else data, order="C", copy=None)
    except (TypeError, RuntimeError):
        raise UsageError("a tensor must be dense, and of numbers that numpy knows: tensor.to_dense().float()") from None
    if array.dtype.str not in TENSOR_TYPES or not 1 <= array.ndim <= 8 or not array.size:
        raise UsageError(
            f"a tensor of {array.dtype} and shape {array.shape} can't be published; give whole numbers, or floats of 32 or 64 "
            "bits, with 1 to 8 axes"
        )
    if terms.privacy_unit != "row" or terms.categories or terms.kinds or not _generated(mock):
        raise UsageError("a tensor has privacy_unit='row', no categories, no kinds, and mock='generate'")
    if terms.bounds and isinstance(terms.bounds, Mapping):
        raise UsageError("bounds of a tensor are one pair for all its entries: bounds=(0, 1)")
    _check_contributions(terms)
    given, array = array.dtype, _signed(array)
    whole = array.dtype.kind in "iu"
    low, high = _check_bounds("the tensor", "int" if whole else "float", terms.bounds or (0, 1))
    described = {"dtype": array.dtype.str, "shape": list(array.shape), "bounds": [low, high]}
    flat = pl.DataFrame({"v0": pl.Series(array.reshape(-1))})
    remarks = [] if terms.bounds else [("bounds", f"none were given, so {low:g} to {high:g} are taken: bounds=(low, high)")]
    if array.dtype != given:
        remarks.append(("type", f"{array.dtype}, which has all values of {given}: pointers have no {given}"))
    outside = int(np.count_nonzero(~((array >= low) & (array <= high)))) if array.dtype.kind != "b" else 0
    if outside:
        told = f"{_share(outside, array.size)} entries lie outside {low:g} to {high:g}, and count as the nearest bound"
        remarks.append(("bounds", told))
    schema = Schema((), 1, terms.max_rows)
    return Prepared(schema, flat, pl.DataFrame(), array.shape[0], 0, (), None, described, tuple(remarks))


def _signed(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Unsigned numbers as the next larger signed ones; raises UsageError where they don't fit."""
    if array.dtype.kind != "u" or array.dtype.itemsize not in SIGNED:
        return array
    if array.max() >= 2**63:
        raise UsageError("a tensor has numbers from 2**63 on, which no signed type holds; scale them, or make them floats")
    return array.astype(SIGNED[array.dtype.itemsize])


def _own_mock(schema: Schema, mock: Any, data: Any, table: pl.DataFrame, terms: Terms) -> pl.DataFrame:
    if mock is data:
        raise UsageError("the mock is the private table itself; leave mock='generate', or give made-up rows")
    try:
        frame = _read(mock, Terms("row", 1), strict=False)[0]
    except UsageError as error:
        raise UsageError(f"the mock: {error} (mock='generate' makes one)") from None
    made = mocks.accept(schema, frame)
    shared = 0 if terms.mock_rows_public else shared_rows(made, table)
    if shared:
        raise UsageError(
            f"{shared} of the mock's {made.height} rows are rows of the private table, and every analyst sees the mock: leave "
            "mock='generate', give made-up rows, or say mock_rows_public=True if these rows may be seen"
        )
    return made


def _check_contributions(terms: Terms) -> None:
    k = terms.max_contributions
    if type(k) is not int or not 1 <= k <= 10**6:
        raise UsageError("max_contributions is how many rows one person may have: a whole number from 1 on")
    if terms.privacy_unit == "row" and k != 1:
        raise UsageError("with privacy_unit='row' max_contributions is 1; to protect people, name their id column")
    if type(terms.max_rows) is not int or not 1 <= terms.max_rows <= MAX_ROWS_LIMIT:
        raise UsageError(f"max_rows is a public upper bound on the number of rows: a whole number from 1 to {MAX_ROWS_LIMIT}")


def _read(
    data: Any, terms: Terms, strict: bool = True
) -> tuple[pl.DataFrame, pl.Series | None, list[str], list[tuple[str, str]]]:
    """The columns that can be queried, as polars, whose each row is, the names of the others, and what the owner should know.

    The id column stays. Not ``strict``: a column of which nothing says what it holds is left out.
    """
    frame = _to_polars(data)
    if len(set(frame.columns)) != frame.width:
        raise UsageError("two columns have the same name; rename one")
    ids = _ids(frame, terms)
    people = _People(ids, frame.height)
    usable, skipped, remarks = [], [], []
    for given in frame.get_columns():
        name, series = given.name, _plain(given)
        if name == terms.privacy_unit != "row":
            usable.append(series)
            continue
        kind = _kind_of(series, terms, people) if strict or name in terms.kinds else _kind(series.dtype)
        if kind is None or not name or len(name) > 200:
            skipped.append(name)
            continue
        if kind in ("int", "text"):
            _check_exact(given, f"numbers of {ascii(name)[:80]}", f"say kinds={{{name!r}: 'float'}}")
        made = _cast(series.alias("value"), kind, name).alias(name)
        changed = _changed(series.alias("value"), made.alias("value"))  # polars takes some names for patterns
        lost = int((changed if ids is None else changed & ids.is_not_null()).sum())
        if lost and strict and name not in terms.kinds and _declared(terms, name) != kind:
            raise UsageError(
                f"{name} would lose or change {_share(lost, len(series))} of its values as {kind}: convert it, or say what it "
                f"is to be, kinds={{{name!r}: {kind!r}}} or 'text'"
            )
        if lost:
            remarks.append(
                (f"{name} as {kind}", f"{_share(lost, len(series))} of its values are no {kind}, and were changed or lost")
            )
        usable.append(made)
    return pl.DataFrame(usable), ids, skipped, remarks


def _plain(given: pl.Series) -> pl.Series:
    """A column without NaN, which is a missing value, and without floats of 16 bits, whose floor() polars gets wrong."""
    if not given.dtype.is_float():
        return given
    return (given.cast(pl.Float64) if given.dtype == pl.Float16 else given).fill_nan(None)


def _ids(frame: pl.DataFrame, terms: Terms) -> pl.Series | None:
    """Whose each row is; None where each is somebody's own. Raises UsageError for ids that can't be told apart surely."""
    if terms.privacy_unit == "row" or terms.privacy_unit not in frame.columns:
        return None
    given = frame.get_column(terms.privacy_unit)
    if given.dtype.is_nested() or given.dtype in (pl.Binary, pl.Object):
        raise UsageError(f"ids can't be {given.dtype}; make them text or whole numbers: frame[id] = frame[id].astype(str)")
    _check_exact(given, f"the ids in {ascii(terms.privacy_unit)[:80]}", "make them whole numbers where they come from")
    return normal(_plain(given))


def _check_exact(given: pl.Series, what: str, way: str) -> None:
    """Raises UsageError for whole numbers as floats that are too large for one: pandas makes such where one is missing."""
    bits = WHOLE.get(given.dtype, 53)
    if given.dtype.is_float():
        known = given.alias("value").cast(pl.Float64).drop_nulls()
        if (known.is_finite() & (known.abs() >= 2.0**bits)).any():
            raise UsageError(f"{what} are floats from 2**{bits} on, which no longer tell whole numbers apart (pandas makes "
                             f"floats where one is missing); read them as text, or with dtype='Int64', or {way}")  # fmt: skip


def _changed(given: pl.Series, made: pl.Series) -> pl.Series:
    """Which values a column's kind changed, or left out."""
    changed = made.is_null()
    if given.dtype.is_integer() or (given.dtype.is_decimal() and made.dtype.is_integer()):
        changed |= made.cast(given.dtype, strict=False) != given if made.dtype != pl.String else False
    elif given.dtype.is_decimal() and made.dtype.is_float():  # of the digits behind the point a float has enough
        changed |= (made.abs() >= 2.0**53) & (made.cast(given.dtype, strict=False) != given)
    elif given.dtype.is_float() and made.dtype != pl.String:
        changed |= made.cast(pl.Float64) != given.cast(pl.Float64)
    return given.is_not_null() & changed.fill_null(True)


def _cast(series: pl.Series, kind: Kind, name: str) -> pl.Series:
    """A column as its kind, each value by itself; raises UsageError where there is no way from the one to the other."""
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)  # not the numbers of its categories, which others' rows decide
    no_way = UsageError(
        f"kinds of {name}: a column of {series.dtype} can't be taken for {kind}; convert it before you publish it"
    )
    if series.dtype.is_nested() or (series.dtype == pl.String and kind == "bool"):
        raise no_way
    if kind == "text" and series.dtype == pl.Boolean:  # written as pandas writes them where other words are among them
        return series.replace_strict([True, False], ["True", "False"], return_dtype=pl.String)
    try:
        return plain_text(series) if kind == "text" else series.cast(STORED[kind], strict=False)
    except pl.exceptions.PolarsError:  # whose text could show a value
        raise no_way from None


def _kind_of(series: pl.Series, terms: Terms, people: _People) -> Kind | None:
    """The public kind of a column; None for types that can't be queried. Raises UsageError where the owner must say.

    It must not tell of one person, such as one without a value, with a fraction, or with a word among numbers: what the owner
    declared goes first, and where it hangs on few people, it is asked for.
    """
    name, bounds = series.name, terms.bounds if isinstance(terms.bounds, Mapping) else {}
    said = terms.kinds.get(name)
    if said is not None:
        if not isinstance(said, str) or said not in STORED:
            raise UsageError(f"kinds of {name}: {ascii(said)[:40]} is none; there are: {', '.join(STORED)}")
        return said
    kind, pair = _kind(series.dtype), bounds.get(name)
    values = series.alias("value")
    known = values.is_not_null()
    declared, empty = _declared(terms, name), not known.any()
    ends: Sequence[Any] = pair if isinstance(pair, tuple | list) else ()
    floats = any(type(b) is float for b in ends)
    if floats and (kind == "float" or empty or (kind == "int" and all(float(b).is_integer() for b in ends))):
        return "float"
    if declared is not None and (empty or declared == kind or (kind == "float" and declared == "int")):
        return declared
    if series.dtype == pl.Null or (kind in ("float", "text") and empty):
        raise UsageError(
            f"{name} is empty, so nothing says what it holds: kinds={{{name!r}: 'float'}} (or 'int', 'text'), or leave it out"
        )
    if kind is None:
        return None
    if people.all > SMALL_TABLE and people.count(known) <= FRACTIONS:
        raise UsageError(
            f"{name} has values of few people only ({people.count(known)}), who would decide what it holds: say "
            f"kinds={{{name!r}: {kind!r}}} (or {', '.join(repr(k) for k in STORED if k != kind)}), or leave it out"
        )
    if kind == "text" and declared is None:
        _check_spelling(name, values.cast(pl.String), people)
    if kind != "float" or series.dtype.is_decimal():
        return kind
    parts = (~values.is_finite() | (values != values.floor())).fill_null(False)
    if not people.count(parts):
        return "int"  # as it would be without those that are missing, or with some
    few = people.few(parts, known & ~parts)
    if few:
        raise UsageError(f"{name} holds whole numbers but for {few}: say which it is, kinds={{{name!r}: 'float'}} or 'int'")
    return "float"


def _check_spelling(name: str, values: pl.Series, people: _People) -> None:
    """Raises UsageError where few people's values alone make a column text, which would be read as something else."""
    spellings = list(SPELLINGS)
    for size in (LOOKED_AT, len(values)):
        text, some = values.head(size).str.strip_chars().str.to_lowercase(), people.head(size)
        written = (text != "").fill_null(False)
        fits = {spelling: _reads(text, spelling) for _, spelling in spellings}
        spellings = [(what, s) for what, s in spellings if some.count(written & ~fits[s]) <= FRACTIONS]
        if not spellings:
            return
    for what, spelling in spellings:
        few = people.few(written & ~fits[spelling], fits[spelling])
        if few:
            kinds = f"kinds={{{name!r}: 'text'}}" + (" or 'float'" if what == "numbers" else "")
            raise UsageError(f"{name} holds {what} but for {few}: make it one or the other, or say {kinds}")


def _reads(text: pl.Series, spelling: str) -> pl.Series:
    """Which texts are written in one of `SPELLINGS`."""
    if spelling.startswith("%"):
        return text.str.extract(r"^(\d[\d./-]*)").str.to_date(spelling, strict=False).is_not_null()
    return text.str.contains(spelling).fill_null(False)


class _People:
    """Whose each row is (``ids``; None: each is somebody's own), to count people. A row without an id is nobody's."""

    def __init__(self, ids: pl.Series | None, rows: int, everybody: int | None = None) -> None:
        self._ids, self._rows = ids, rows
        self.all = everybody if everybody is not None else rows if ids is None else ids.drop_nulls().n_unique()

    def head(self, rows: int) -> _People:
        """Those of the first rows, in a table of as many people."""
        return _People(None if self._ids is None else self._ids.head(rows), min(rows, self._rows), self.all)

    def count(self, rows: pl.Series) -> int:
        """How many people's these rows are; where they are clearly more than a few, only that they are more."""
        if self._ids is None:
            return int(rows.sum())
        theirs = self._ids.filter(rows).drop_nulls()
        some = theirs.head(LOOKED_AT).n_unique()
        return some if some > FRACTIONS else theirs.n_unique()

    def few(self, odd: pl.Series, others: pl.Series) -> str:
        """In words, how many people's rows are ``odd``, if so few that they may be one person's slip; else nothing.

        Nothing in tables of few people, where each is one of few, and where there are no others.
        """
        count = self.count(odd)
        if self.all <= SMALL_TABLE or not 0 < count <= FRACTIONS or not self.count(others):
            return ""
        everybody = self.count(others) if self._ids is None else self._ids.filter(others).drop_nulls().n_unique()
        return _share(count, count + everybody) + ("" if self._ids is None else " people")


def _declared(terms: Terms, name: str) -> Kind | None:
    """The kind that declared categories say."""
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", str: "text"}
    categories: Any = terms.categories.get(name, ())
    if not isinstance(categories, Sequence):
        return None  # `_check_categories` says so
    types = {type(_plain_value(c)) for c in categories}
    return kinds.get(types.pop()) if len(types) == 1 else None


def _plain_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _share(count: float, of: int) -> str:
    """A number of rows, and how many of all that is; for the owner."""
    return f"{count} ({count / max(1, of):.1%})"


def _remarks(schema: Schema, whole: pl.DataFrame, kept: pl.DataFrame, terms: Terms) -> list[tuple[str, str]]:
    """What bounds, categories and contributions leave out, and what looks like an id: about the data, for the owner's eyes."""
    found = []
    if terms.privacy_unit != "row":
        ids = normal(whole.get_column(terms.privacy_unit))
        as_given = whole.get_column(terms.privacy_unit).alias("id").cast(pl.String).filter(ids.is_not_null())
        written = as_given.n_unique() - ids.drop_nulls().n_unique()
        rows = ids.drop_nulls().value_counts(sort=True)
        if written > 0:
            found.append(
                ("ids", f"{written} were written in other ways, such as '7 ' or '07', and are taken for the same person")
            )
        if rows.height and rows["count"][0] > terms.max_contributions:
            over = (rows["count"] > terms.max_contributions).sum()
            found.append(
                (
                    "ids",
                    f"{_share(over, rows.height)} people have more than {terms.max_contributions} rows, one {rows['count'][0]}",
                )
            )
    for column in schema.columns:
        values = kept.get_column(column.name).alias("value")
        if column.bounds is not None:
            low, high = column.bounds
            outside = ((values < low) | (values > high)).sum()
            if outside:
                told = f"{_share(outside, kept.height)} values lie outside {low:g} to {high:g}; sums and means clip them"
                found.append((f"bounds of {column.name}", told))
        if column.categories is not None:
            missing = (~values.is_in(list(column.categories))).fill_null(True).sum()
            if missing:
                told = f"{_share(missing, kept.height)} rows are in no declared category (or empty), so in no group"
                found.append((f"categories of {column.name}", told))
        elif column.kind in ("text", "int") and terms.privacy_unit == "row" and 20 <= kept.height == values.n_unique():
            found.append(
                (column.name, "differs in every row, as an identifier does: should it be the privacy_unit, or left out?")
            )
    return found


def _to_polars(data: Any) -> pl.DataFrame:
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, str | Path):
        return _parquet(Path(data))
    if type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns"):
        if not all(isinstance(c, str) for c in data.columns):
            raise UsageError("column names must be text; rename them with frame.columns = [...]")
        return pl.DataFrame([_series(name, data[name]) for name in dict.fromkeys(data.columns)])
    raise UsageError(f"publish takes a pandas DataFrame or the path of a Parquet file or folder, not {type(data).__name__}")


def _series(name: str, column: Any) -> pl.Series:
    if column.ndim != 1:
        raise UsageError(f"two columns are called {ascii(name)[:80]}; rename one")
    try:
        series: pl.Series = pl.from_pandas(column.reset_index(drop=True), nan_to_null=True)
        return series.alias(name)
    except Exception:  # pyarrow's text would show a value
        raise UsageError(f"the column {ascii(name)[:80]} mixes types; convert it to numbers or to text") from None


def _parquet(path: Path) -> pl.DataFrame:
    source = path / "**/*.parquet" if path.is_dir() else path
    try:
        return pl.scan_parquet(source, hive_partitioning=False).collect()
    except FileNotFoundError:
        raise UsageError(f"there is no Parquet file at {path.name}") from None
    except pl.exceptions.PolarsError:
        raise UsageError(f"{path.name} is no Parquet file that can be read, or its files have different columns") from None


def _kind(dtype: Any) -> Kind | None:
    if dtype.is_integer():
        return "int"
    if dtype.is_float() or dtype.is_decimal():
        return "float"
    if dtype == pl.Boolean:
        return "bool"
    return "text" if dtype in (pl.String, pl.Categorical, pl.Enum) else None


def _describe(name: str, dtype: Any, terms: Terms) -> Column:
    kind = _kind(dtype) or "text"
    by_column = terms.bounds if isinstance(terms.bounds, Mapping) else {}
    bounds, categories = by_column.get(name), terms.categories.get(name)
    if kind == "bool" and categories is None:
        categories = (False, True)
    return Column(
        name,
        kind,
        None if bounds is None else _check_bounds(name, kind, bounds),
        None if categories is None else _check_categories(name, kind, categories),
    )


def _check_bounds(name: str, kind: Kind, bounds: Any) -> tuple[float, float]:
    wrong = UsageError(f"bounds of {name}: give (low, high), low < high, both below 2**53 in size, such as (0, 110)")
    if kind not in ("int", "float"):
        raise UsageError(f"bounds of {name}: the column is {kind}, and only numbers have bounds")
    if isinstance(bounds, str | bytes):
        raise wrong
    try:
        low, high = (float(b) for b in bounds)
    except (TypeError, ValueError):
        raise wrong from None
    if not -(2.0**53) < low < high < 2.0**53:
        raise wrong
    if kind == "float":
        return low, high
    if not (low.is_integer() and high.is_integer()):
        raise UsageError(f"bounds of {name}: the column holds integers, so its bounds must be whole")
    return int(low), int(high)


def _check_categories(name: str, kind: Kind, categories: Any) -> tuple[Scalar, ...]:
    expected = {"int": int, "bool": bool, "text": str}.get(kind)
    if expected is None:
        raise UsageError(f"categories of {name}: the column is {kind}; categories are text, integers or booleans")
    if isinstance(categories, str) or not isinstance(categories, Sequence):
        raise UsageError(f"categories of {name}: give a list")
    values = [_plain_value(c) for c in categories]
    fits = all(type(c) is expected and len(str(c)) <= 1000 for c in values)
    if not fits or (kind == "int" and not all(-(2**63) <= int(str(c)) < 2**63 for c in values)):
        raise UsageError(f"categories of {name}: each must be {expected.__name__}, as the column is")
    if not 1 <= len(values) <= MAX_GROUPS or len(set(values)) != len(values):
        raise UsageError(f"categories of {name}: give 1 to {MAX_GROUPS} different ones")
    return tuple(values)


def _limit_contributions(frame: pl.DataFrame, ids: pl.Series | None, terms: Terms, key: bytes) -> pl.Series:
    """Which rows stay: k of each id, by a keyed hash of what they hold; rows without an id are nobody's, and go.

    Which ones depends on nobody else's rows, and not on the table's order, which would favour what comes first, such as spring.
    Equal rows of a person are told apart by their rank among them.
    """
    if ids is None:
        return pl.repeat(True, frame.height, eager=True)
    counts = pl.DataFrame({"id": ids}).select(pl.len().over("id")).to_series()
    known = ids.is_not_null()
    if not (counts.filter(known) > terms.max_contributions).any():
        return known
    parts = [ids, *[series for series in frame.get_columns() if series.name != terms.privacy_unit]]
    content = pl.DataFrame([part.alias(str(i)) for i, part in enumerate(parts)]).hash_rows(*_seeds(key))
    rows = pl.DataFrame({"id": ids, "row": content}).with_columns(rank=pl.int_range(pl.len()).over("id", "row"))
    rows = rows.with_columns(drawn=rows.hash_rows(*_seeds(hashlib.sha256(key).digest())))
    first = rows.select(pl.struct("drawn", "rank").rank("ordinal").over("id") <= terms.max_contributions)
    return first.to_series() & known


def _seeds(key: bytes) -> tuple[int, int, int, int]:
    first, second, third, fourth = (int.from_bytes(key[i : i + 8], "little") for i in range(0, 32, 8))
    return first, second, third, fourth


class Store:
    """The tables in a folder of the owner's state, and those kept in memory only.

    Beside each lies who its rows are about, as keyed hashes (`people`): to count people in a cohort, and to notice when
    the same people are published under another name. The key lies in the state folder; so do the tables.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._people = folder.parent / "people"
        self._memory: dict[str, pl.DataFrame] = {}
        self._mocks: dict[str, pl.DataFrame] = {}
        self._hashes: dict[str, np.ndarray[Any, Any]] = {}
        self._likeness: dict[str, Likeness] = {}
        self._made: tuple[Prepared, Likeness] | None = None
        self._packed: dict[str, Data] = {}
        self._packing, self._checking = threading.Lock(), threading.Lock()
        self._expected: dict[str, tuple[str, str | None]] = {}
        self._checked: dict[str, tuple[int, int, int]] = {}
        for place in (folder, self._people):
            state.make_private(place)
        key = folder.parent / "store.json"
        if not key.exists():
            write_secret(key, {"key": secrets.token_hex(32)})
        self._key = bytes.fromhex(read_secret(key)["key"])

    def put(self, name: str, version: int, prepared: Prepared, persist: bool) -> dict[str, str]:
        """Keep a version; gives its file name and the salted commitment that the journal holds."""
        file = f"{name}-v{version}-{secrets.token_hex(4)}.arrow"
        hashes, alike = self.people_of(prepared), self.likeness_of(prepared)
        self._made = None
        if persist:
            digest = self._write(file, prepared.table)
            self._write(f"mock-{file}", prepared.mock)
            self._save(f"{file}.npy", lambda out: np.save(out, hashes))
            if alike is not None:
                self._save(f"{file}.columns.npz", lambda out: np.savez(out, **alike.arrays()))
        else:
            digest = hashlib.sha256(prepared.table.write_ipc(None, compression="uncompressed").getvalue()).hexdigest()
            self._memory[file], self._mocks[file] = prepared.table, prepared.mock
            self._hashes[file] = hashes
            if alike is not None:
                self._likeness[file] = alike
        return {"file": file, "digest": digest, "commitment": self.commitment(file, digest)}

    def commitment(self, file: str, digest: str, salt: str | None = None) -> str:
        """The salted commitment to a stored file. Its salt can't be had without the state folder (older journals hold it)."""
        made = hmac.new(self._key, f"commitment {file}".encode(), hashlib.sha256).digest()
        return hmac.new(bytes.fromhex(salt) if salt else made, bytes.fromhex(digest), hashlib.sha256).hexdigest()

    def people_of(self, prepared: Prepared) -> np.ndarray[Any, Any]:
        """A keyed hash (uint64) for each row: of its id, or of the row itself."""
        if prepared.tensor is not None:
            rows = prepared.table.get_column("v0").to_numpy().reshape(prepared.tensor["shape"][0], -1)
            return np.array([self._hash(row.tobytes()) for row in rows], dtype=np.uint64)
        if prepared.ids is None:
            return prepared.table.hash_rows(*_seeds(self._key)).to_numpy()
        if not len(prepared.ids):
            return np.empty(0, dtype=np.uint64)
        known = prepared.ids.unique()
        hashes = pl.Series([self._hash(t.encode()) for t in known.to_list()], dtype=pl.UInt64)
        return prepared.ids.replace_strict(known, hashes, return_dtype=pl.UInt64).to_numpy()

    @property
    def key(self) -> bytes:
        """What decides which rows of a person stay where they have too many: the same ones for the same table."""
        return hashlib.sha256(b"contributions" + self._key).digest()

    def likeness_of(self, prepared: Prepared) -> Likeness | None:
        """What a table is known again by; None for a tensor."""
        if prepared.plain is None:
            return None
        if self._made is None or self._made[0] is not prepared:  # once for a publishing
            self._made = prepared, likeness(prepared.plain, _seeds(self._key), prepared.unit)
        return self._made[1]

    def likeness(self, file: str) -> Likeness | None:
        """The likeness of a version; None where none was kept, as by older versions of this software."""
        if file in self._likeness:
            return self._likeness[file]
        path = self._people / f"{file}.columns.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as kept:
            return Likeness.of_arrays(kept)

    def _hash(self, content: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=self._key).digest(), "little")

    def people(self, file: str) -> np.ndarray[Any, Any] | None:
        """Whose each row of a version is, as keyed hashes; None where it was in memory only, and is gone."""
        if file in self._hashes:
            return self._hashes[file]
        path = self._people / f"{file}.npy"
        return np.load(path, allow_pickle=False, mmap_mode="r") if path.is_file() else None

    def expect(self, file: str, commitment: str, salt: str | None = None) -> None:
        """From now on a file is opened only if it is what was published: see `check`."""
        self._expected[file] = commitment, salt

    def check(self, file: str) -> None:
        """Compare a file with what was published, once for as long as it stays as it is; raises StateError."""
        path = self._folder / file
        if not path.is_file():
            raise StateError("the file of a published table is missing from the state folder; withdraw and publish it again")
        commitment, salt = self._expected.get(file, ("", None))
        with self._checking:
            about = path.stat()
            look = (about.st_mtime_ns, about.st_size, about.st_ino)
            if not commitment or self._checked.get(file) == look:
                return
            if self.commitment(file, self.digest(file), salt) != commitment:
                raise StateError("the file of a published table was changed after publishing; withdraw and publish it again")
            self._checked[file] = look

    def table(self, file: str) -> pl.LazyFrame:
        """The stored table, lazily; raises StateError if its file is gone, or was changed since it was published."""
        if file in self._memory:
            return self._memory[file].lazy()
        self.check(file)
        return pl.scan_ipc(self._folder / file, memory_map=True)

    def mock(self, file: str) -> pl.DataFrame:
        """The mock of a version."""
        if file not in self._mocks:
            self._mocks[file] = pl.read_ipc(self._folder / f"mock-{file}", memory_map=False)
        return self._mocks[file]

    def rows(self, file: str, schema: Schema, chosen: Node | None) -> np.ndarray[Any, Any]:
        """Which rows of a version pass a filter: one boolean a row."""
        stored = self.table(file)
        if chosen is None:
            return np.ones(stored.select(pl.len()).collect().item(), dtype=bool)
        return passing(schema, chosen, stored).to_numpy()

    def part(
        self, file: str, form: Schema | Mapping[str, Any], keep: np.ndarray[Any, Any] | None, columns: Sequence[str]
    ) -> Data:
        """Some rows and columns of a version, laid out anew; close it after use. No columns means all of them."""
        if keep is None and not columns:
            return self.cell(file, form)
        stored = self.table(file).collect()
        if not isinstance(form, Schema):
            array = stored.get_column("v0").to_numpy().reshape(form["shape"])
            return pack_tensor(array if keep is None else array[keep])
        named = _decoded(form, stored if keep is None else stored.filter(pl.Series(keep)))
        return pack_table({n: named[n] for n in columns} if columns else named)

    def cell(self, file: str, form: Schema | Mapping[str, Any]) -> Data:
        """The table or tensor as approved code sees it, under its published names; close it after use."""
        with self._packing:
            found = self._packed.get(file)
            if found is None:
                stored = self.table(file).collect()
                if isinstance(form, Schema):
                    found = pack_table(_decoded(form, stored))
                else:
                    found = pack_tensor(stored.get_column("v0").to_numpy().reshape(form["shape"]))
                self._packed[file] = found
            return Data(os.dup(found.fd), found.layout, found.size)

    def warm(self, file: str, form: Schema | Mapping[str, Any]) -> None:
        """Lay the data out for code that may be approved, so that a run need not wait for it."""
        self.cell(file, form).close()

    def digest(self, file: str) -> str:
        """SHA-256 of a stored file, for the audit."""
        path = self._folder / file
        if not path.is_file():
            raise StateError(f"the file {file} of a published table is missing")
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def remove(self, file: str) -> None:
        """Forget a version and delete its files."""
        self._memory.pop(file, None)
        self._mocks.pop(file, None)
        with self._packing:
            if file in self._packed:
                self._packed.pop(file).close()
        for name in (file, f"mock-{file}"):
            (self._folder / name).unlink(missing_ok=True)

    def forget(self, file: str) -> None:
        """Forget a version that was never published, and whose its rows were."""
        self.remove(file)
        self._hashes.pop(file, None)
        self._likeness.pop(file, None)
        for end in ("npy", "columns.npz"):
            (self._people / f"{file}.{end}").unlink(missing_ok=True)

    def remove_others(self, files: set[str]) -> None:
        """Delete what no published version refers to: left by a crash between writing and journaling."""
        for path in self._folder.iterdir():
            if path.name.removeprefix("mock-") not in files:
                path.unlink()

    def close(self) -> None:
        """Free the memory of what was laid out for code."""
        with self._packing:
            while self._packed:
                self._packed.popitem()[1].close()

    def _save(self, name: str, write: Callable[[Any], None]) -> None:
        with state.writing(self._people / name) as out:
            write(out)

    def _write(self, file: str, table: pl.DataFrame) -> str:
        with state.writing(self._folder / file) as out:
            table.write_ipc(out, compression="uncompressed")
            out.seek(0)
            return hashlib.file_digest(out, "sha256").hexdigest()


def _decoded(schema: Schema, table: pl.DataFrame) -> dict[str, pl.Series]:
    """The columns of a stored table under their published names, codes turned back into what they stand for."""
    columns = {}
    for column in schema.columns:
        name = stored_names(schema, column)[0]
        series = table.get_column(name)
        if name[0] == "g":
            series = pl.Series(list(column.categories or ()), dtype=STORED[column.kind]).gather(series)
        columns[column.name] = series
    return columns
