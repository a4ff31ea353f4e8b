"""Whether two tables are about the same people, and whether a mock is the table: from columns' hashes, as far as they tell.

Ids are written alike here and nowhere else (`normal`). Of each published table a *likeness* is kept: a keyed hash of each
value, by column, so that the same rows are known again with columns added, dropped, renamed, reordered or of another type, and
a person's rows by an id that another table has as a plain column. A likeness never leaves the state folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

OVERLAP = 0.02  # share of the smaller table's people from which on two populations are taken for the same people
SMALL = 1000  # so few people may have ids 1 to n in unrelated tables
CHANCE = 0.005  # equal rows by chance, as a share of rows
COLUMNS, EQUAL, FEWEST, AGREEMENT, COARSE = 24, 0.5, 10, 0.2, 30

Hashes = np.ndarray[Any, Any]


def normal(values: pl.Series) -> pl.Series:
    """Ids as text, each person's written one way: ``7``, ``7.0``, ``"7 "`` and ``"07"`` are one, and an empty one is none."""
    values = values.alias("id")  # polars takes some names for patterns
    text = plain_text(values).str.normalize("NFKC").str.strip_chars()
    text = text.str.replace(r"^(-?)0*(\d+?)(?:\.0+)?$", "${1}${2}")
    return text.to_frame().select(pl.when(pl.col("id").str.len_chars() > 0).then("id").alias("id")).to_series()


def plain_text(values: pl.Series) -> pl.Series:
    """Values as text, each by itself: a float that is whole as a whole number, and no number as none."""
    if not values.dtype.is_float():
        return values.cast(pl.String)
    value = pl.col("value")
    whole = (value == value.floor()) & (value.abs() < 2.0**63)
    text = pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(value.cast(pl.String))
    return values.alias("value").fill_nan(None).to_frame().select(text.alias("value")).to_series().alias(values.name)


@dataclass(frozen=True)
class Likeness:
    """Hashes (uint32) of a table's columns, by name, and how many values each could have had (log 2) had it been made up.

    ``counted`` columns only count: ids 1 to n, days in the order of ids, regular times. Unrelated tables have the same ones.
    """

    columns: Mapping[str, Hashes]
    bits: Mapping[str, float]
    rows: int
    counted: frozenset[str] = frozenset()

    def arrays(self) -> dict[str, Any]:
        """What `numpy.savez` keeps."""
        names = list(self.columns)
        return {
            "names": np.array(names, dtype=str), "rows": np.array(self.rows),
            "bits": np.array([self.bits[n] for n in names]), "counted": np.array([n in self.counted for n in names]),
            "hashes": np.array([self.columns[n] for n in names], dtype=np.uint32).reshape(len(names), self.rows),
        }  # fmt: skip

    @classmethod
    def of_arrays(cls, kept: Mapping[str, Any]) -> Likeness:
        """The likeness in what was kept."""
        names = [str(n) for n in kept["names"]]
        bits = {n: float(b) for n, b in zip(names, kept["bits"], strict=True)}
        counted = frozenset(n for n, only in zip(names, kept["counted"], strict=True) if only)
        return cls(dict(zip(names, kept["hashes"], strict=True)), bits, int(kept["rows"]), counted)


def likeness(frame: pl.DataFrame, seeds: tuple[int, int, int, int], unit: str = "row") -> Likeness:
    """The likeness of a table under its own column names, its id (``unit``) among them; of its most telling columns if many."""
    bits = {name: _bits(frame.get_column(name)) for name in frame.columns}
    kept = sorted(frame.columns, key=lambda n: -bits[n])[:COLUMNS]
    if unit in frame.columns and unit not in kept:
        kept.append(unit)
    hashes = {n: _plain(frame.get_column(n)).hash(*seeds).to_numpy().astype(np.uint32) for n in kept}
    order = _number(frame.get_column(unit)).arg_sort() if unit in frame.columns else None
    counted = frozenset(n for n in kept if _counts(_number(frame.get_column(n)), order))
    return Likeness(hashes, {n: bits[n] for n in kept}, frame.height, counted)


def _number(values: pl.Series) -> pl.Series:
    """Numbers of a column, those at the end of a text such as p17 among them."""
    values = values.alias("value")
    if values.dtype == pl.String:
        values = values.str.extract(r"(-?\d+)\s*$", 1)
    return values.cast(pl.Float64, strict=False).fill_nan(None)


def _counts(numbers: pl.Series, order: pl.Series | None) -> bool:
    """Whether numbers only count: with few gaps, at a regular step, or as the ids go."""
    known = numbers.drop_nulls()
    distinct = known.unique().sort()
    if len(known) < len(numbers) / 2 or len(distinct) < FEWEST:
        return False
    places = _decimals(distinct.filter(distinct.is_finite()))
    if places < 9 and distinct.is_finite().all() and distinct.abs().max() < 2.0**52 / 10**places:
        whole = np.round(distinct.to_numpy() * 10.0**places).astype(np.int64)
        step = int(np.gcd.reduce(np.diff(whole))) or 1
        if (whole[-1] - whole[0]) // step + 1 <= 3 * len(whole) and len(whole) > len(known) / 2:
            return True
    if order is None:
        return False
    placed = numbers.gather(order).drop_nulls()
    return placed.is_sorted() or placed.is_sorted(descending=True)


def _plain(values: pl.Series) -> pl.Series:
    """Values of any type as text, numbers as a float of 32 bits has them."""
    values = values.alias("value")
    if values.dtype == pl.String:
        text = normal(values)
    else:
        text = pl.repeat(None, len(values), dtype=pl.String, eager=True)
        values = values.cast(pl.Float64, strict=False)
    number = values.cast(pl.Float64, strict=False).cast(pl.Float32, strict=False) + 0.0
    return pl.select(pl.when(number.is_not_null()).then(number.cast(pl.String)).otherwise(text)).to_series()


def _bits(values: pl.Series) -> float:
    """How many values could stand there (log 2), had somebody made them up: few where they repeat, a range of whole numbers."""
    known = values.alias("value").drop_nulls()
    distinct = known.n_unique()
    if distinct <= len(known) / 2 or distinct < 2:
        return math.log2(max(1, distinct))
    if values.dtype == pl.String:
        stems = known.str.extract(r"^(.*?)(\d*)\s*$", 1).n_unique()
        numbers = known.str.extract(r"(\d+)\s*$", 1).cast(pl.Int64, strict=False)
        numbered = stems <= distinct / 10 and not numbers.null_count()  # such as p1, p2, p3
        return math.log2(stems) + _range(numbers) if numbered else 64.0
    if values.dtype.is_float():
        finite = known.filter(known.is_finite())
        return 64.0 if not len(finite) else min(64.0, _range(finite) + _decimals(finite) * math.log2(10))
    return _range(known)


def _range(values: pl.Series) -> float:
    low, high = values.min(), values.max()
    return math.log2(max(2.0, float(high) - float(low) + 1))  # type: ignore[arg-type]


def _decimals(values: pl.Series) -> int:
    for places in range(9):
        scaled = values * 10.0**places
        if ((scaled - scaled.round()).abs() <= 1e-9 * scaled.abs().clip(1.0)).all():
            return places
    return 12


# Two tables


def same_rows(new: Likeness, old: Likeness) -> bool:
    """Whether more than a few rows of the smaller table are in the other, by the columns that they share."""
    pairs = _shared(new, old)
    if not pairs:
        return False
    told = [(min(new.bits[a], old.bits[b]), a in new.counted or b in old.counted) for a, b in pairs]
    possible = sum(b for b, counted in told if not counted) + max([b for b, counted in told if counted], default=0.0)
    mine, theirs = (_combined(table, [pair[i] for pair in pairs]) for i, table in enumerate((new, old)))
    first, second = np.unique(mine), np.unique(theirs)
    for keys, table in ((first, new), (second, old)):
        if keys.size <= table.rows / 2:  # they repeat: columns tell less together than each alone
            possible = min(possible, math.log2(max(1, keys.size)))
    beyond_chance = possible >= math.log2(max(new.rows, old.rows, 1) / CHANCE)
    return (beyond_chance and _overlap(first, second)) or _recounted(mine, theirs, told)


def _recounted(new: Hashes, old: Hashes, told: Sequence[tuple[float, bool]]) -> bool:
    """Whether coarse rows are there as often in both tables, of nearly one size: of other people their numbers would differ."""
    if all(counted for _, counted in told) or not 0.8 * old.size <= new.size <= old.size / 0.8:
        return False
    (mine, times), (theirs, others) = (np.unique(t, return_counts=True) for t in (new, old))
    _, i, j = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    return bool(mine.size >= COARSE and np.minimum(times[i], others[j]).sum() >= 0.9 * min(new.size, old.size))


def same_ids(new: Hashes, old: Hashes) -> bool:
    """Whether more than a few ids of the smaller table are in the other."""
    return _overlap(np.unique(new), np.unique(old))


def same_values(new: Likeness, old: Likeness, new_id: str, old_id: str) -> bool:
    """Whether people with equal ids have equal values in a column that both tables have, more than if ids were mixed up.

    For ids such as 1 to n, which unrelated tables share.
    """
    pairs = [(a, b) for a, b in _shared(new, old) if a != new_id and b != old_id and not (a in new.counted or b in old.counted)]
    if new_id not in new.columns or old_id not in old.columns:
        return False
    mine, theirs = new.columns[new_id].astype(np.uint64), old.columns[old_id].astype(np.uint64)
    common = np.intersect1d(mine, theirs)
    if common.size < FEWEST:
        return False
    turned = np.roll(common, common.size // 2)  # somebody else's id
    for a, b in pairs:
        values, known = (t.columns[n].astype(np.uint64) for t, n in ((new, a), (old, b)))
        here = np.isin(mine, common)
        others = turned[np.searchsorted(common, mine[here])]
        there = np.unique((theirs << np.uint64(32)) | known)
        equal, chance = (np.isin((ids << np.uint64(32)) | values[here], there).mean() for ids in (mine[here], others))
        if equal > chance + AGREEMENT:
            return True
    return False


def _overlap(first: Hashes, second: Hashes) -> bool:
    smaller = min(first.size, second.size)
    return bool(np.intersect1d(first, second, assume_unique=True).size > OVERLAP * smaller) if smaller else False


def dense(ids: pl.Series) -> bool:
    """Whether ids only count, such as 1 to n, or 10, 20, 30."""
    return _counts(_number(normal(ids).unique()), None)


def _shared(new: Likeness, old: Likeness) -> list[tuple[str, str]]:
    """Columns that two tables share: by name, and where a name is in one only, by having the same values."""
    theirs = {_key(n): n for n in old.columns}
    pairs = [(n, theirs[_key(n)]) for n in new.columns if _key(n) in theirs]
    left = [n for n in new.columns if n not in {a for a, _ in pairs}]
    others = [n for n in old.columns if n not in {b for _, b in pairs}]
    values = {n: np.unique(old.columns[n]) for n in others}
    for name in left:
        mine = np.unique(new.columns[name])
        for other in others:
            smaller = min(mine.size, values[other].size)
            if smaller >= 20 and np.intersect1d(mine, values[other], assume_unique=True).size > EQUAL * smaller:
                pairs.append((name, other))
                others.remove(other)
                break
    # A column whose values are others in both, such as one that was computed anew, must not hide what the rest tells.
    return [(a, b) for a, b in pairs if _alike(new.columns[a], old.columns[b])]


def _alike(first: Hashes, second: Hashes) -> bool:
    a, b = np.unique(first), np.unique(second)
    smaller = min(a.size, b.size)
    return bool(smaller and np.intersect1d(a, b, assume_unique=True).size > OVERLAP * smaller)


def _key(name: str) -> str:
    return "".join(ch for ch in name.casefold() if ch.isalnum())


def _combined(table: Likeness, names: list[str]) -> Hashes:
    """One hash a row, of these columns."""
    mixed = np.zeros(table.rows, dtype=np.uint64)
    for name in names:
        mixed = (mixed ^ table.columns[name].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


# A mock and its table


def shared_rows(mock: pl.DataFrame, table: pl.DataFrame) -> int:
    """How many rows of a mock are rows of the table, if that is more than made-up ones would be by chance; 0 otherwise."""
    names = [n for n in mock.columns if n in table.columns]
    if not names or not mock.height or not table.height:
        return 0
    own, private = (pl.DataFrame([_plain(f.get_column(n)).alias(f"c{i}") for i, n in enumerate(names)]) for f in (mock, table))
    equal = own.join(private.unique(), on=own.columns, how="semi", nulls_equal=True)
    bits = {c: _bits(table.get_column(n)) for c, n in zip(own.columns, names, strict=True)}
    chances = np.full(mock.height, table.height / 2.0 ** min(sum(bits.values()), 1000))
    for name in own.columns:  # of values that repeat, how often they do
        if bits[name] < math.log2(max(2, table.height)) - 1:
            counts = private.get_column(name).value_counts(name="share", normalize=True)
            share = (
                own.select(name)
                .join(counts, on=name, how="left", nulls_equal=True, maintain_order="left")["share"]
                .fill_null(0)
            )
            chances *= share.to_numpy() * 2.0 ** bits[name]
    expected = float(np.minimum(chances, 1).sum())
    return equal.height if equal.height > expected + 3 * math.sqrt(expected) else 0
