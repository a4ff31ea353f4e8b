"""Whether two tables are about the same people, and whether a mock is the table: from columns' hashes, as far as they tell.

Ids are written alike here and nowhere else (`normal`). Of each published table a *likeness* is kept: a keyed hash of each
value, by column, so that the same rows are known again with columns added, dropped, renamed, reordered or of another type, and
a person's rows by an id that another table has as a plain column. A likeness never leaves the state folder.

Rows that two tables share are told from equal rows of unrelated people by how often *different* people of one table have equal
rows: this holds for columns that hang together, few values and skewed ones alike (`_beyond_chance`). It is asked of many sets
of columns (`_sets`), so that some columns that were computed anew hide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

OVERLAP = 0.02  # share of the smaller table's people from which on two populations are taken for the same people
SMALL = 1000  # so few people may have ids 1 to n in unrelated tables
DEVIATIONS = 5.0  # of chance, beyond which it is none: more than a hundred sets of columns are tried
FEWEST, AGREEMENT = 10, 0.2
ROWS, CELLS = 1 << 18, 1 << 23  # of a larger table a sample is kept: 40 MiB at most, but for thousands of columns
TRIED, COUNTED = 48, 1 << 16  # columns of two tables, and rows, that are compared closely
BINS, FEW, NONE = 16, 24, 255  # shapes: bins by rank, values that are told apart by how often they are there, no value

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

    ``counted`` columns only count: ids 1 to n, regular times. Unrelated tables have the same ones. ``shapes`` are columns
    (uint8, in a keyed order) as no unit or spelling changes them: which sixteenth of the table a number is in, or which of
    the frequent values a value is. ``share`` of the table's rows is kept. One of an older version has no shapes.
    """

    columns: Mapping[str, Hashes]
    bits: Mapping[str, float]
    rows: int
    counted: frozenset[str] = frozenset()
    shapes: Mapping[str, Hashes] = field(default_factory=dict)
    share: float = 1.0

    def arrays(self) -> dict[str, Any]:
        """What `numpy.savez` keeps."""
        names, shaped = list(self.columns), list(self.shapes)
        return {
            "names": np.array(names, dtype=str), "rows": np.array(self.rows), "share": np.array(self.share),
            "bits": np.array([self.bits[n] for n in names]), "counted": np.array([n in self.counted for n in names]),
            "hashes": np.array([self.columns[n] for n in names], dtype=np.uint32).reshape(len(names), self.rows),
            "shaped": np.array(shaped, dtype=str),
            "shapes": np.array([self.shapes[n] for n in shaped], dtype=np.uint8).reshape(len(shaped), self.rows),
        }  # fmt: skip

    @classmethod
    def of_arrays(cls, kept: Mapping[str, Any]) -> Likeness:
        """The likeness in what was kept, by this version or an older one."""
        names = [str(n) for n in kept["names"]]
        bits = {n: float(b) for n, b in zip(names, kept["bits"], strict=True)}
        counted = frozenset(n for n, only in zip(names, kept["counted"], strict=True) if only)
        columns = dict(zip(names, kept["hashes"], strict=True))
        if "shapes" not in kept:
            return cls(columns, bits, int(kept["rows"]), counted)
        shapes = {str(n): codes for n, codes in zip(kept["shaped"], kept["shapes"], strict=True)}
        return cls(columns, bits, int(kept["rows"]), counted, shapes, float(kept["share"]))


def likeness(frame: pl.DataFrame, seeds: tuple[int, int, int, int], unit: str = "row") -> Likeness:
    """The likeness of a table under its own column names, its id (``unit``) among them; with an id, rows are by its number."""
    height = frame.height
    codes, named = np.random.default_rng(seeds).permutation(256).astype(np.uint8), _id(unit)
    rows = min(height, ROWS, max(FEWEST * 100, CELLS // max(1, frame.width)))
    if rows < height:
        frame = frame.sample(rows, seed=seeds[0] % 2**63)
    if named in frame.columns:  # neighbours by id tell what follows the ids' order from what people are
        frame = frame[_number(frame.get_column(unit)).arg_sort()]
    made = {n: _column(frame.get_column(n), seeds, n == named) for n in frame.columns}
    return Likeness(
        {n: c.hashes for n, c in made.items()},
        {n: c.bits for n, c in made.items()},
        frame.height,
        frozenset(n for n, c in made.items() if c.counted),
        {n: codes[c.shape] for n, c in made.items() if c.shape is not None and n != named},
        rows / max(1, height),
    )


def _id(unit: str) -> str | None:
    """The name of a table's id; None where each row is somebody's own: a column may be called "row" too."""
    return None if unit == "row" else unit


def _owners(table: Likeness, unit: str) -> Hashes | None:
    return None if unit == "row" else table.columns.get(unit)


@dataclass(frozen=True)
class _Column:
    hashes: Hashes
    bits: float
    counted: bool
    shape: Hashes | None


def _column(values: pl.Series, seeds: tuple[int, int, int, int], of_people: bool) -> _Column:
    hashes = _plain(values).hash(*seeds).to_numpy().astype(np.uint32)
    sizes = _sizes(hashes)
    telling = values.unique() if of_people else values
    numbers = _number(telling).to_numpy()
    bits = _bits(telling, numbers, min(sizes.size, len(telling)))
    return _Column(hashes, bits, sizes.size >= FEWEST and _counts(numbers), _shape(values, hashes, sizes.size))


def _distinct(values: Hashes) -> Hashes:
    """Values once each, in order (numpy's own way hashes them, which takes longer than to sort them)."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if ordered.size else ordered


def _sizes(values: Hashes) -> Hashes:
    """How often each value is there, in the order of values."""
    ordered = np.sort(values)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if ordered.size else np.zeros(0, dtype=int)
    return np.diff(np.append(starts, ordered.size))


def _shape(values: pl.Series, hashes: Hashes, distinct: int) -> Hashes | None:
    """A column as no unit and no spelling changes it; None for texts of many values."""
    if distinct <= FEW:
        _, places, times = np.unique(hashes, return_inverse=True, return_counts=True)
        return np.asarray(np.argsort(np.argsort(-times, kind="stable")).astype(np.uint8)[places])
    numbers = values.cast(pl.Float64, strict=False).to_numpy()
    there = ~np.isnan(numbers)
    known = np.sort(numbers[there])
    if known.size <= numbers.size / 2:
        return None
    starts = np.flatnonzero(np.append(True, known[1:] != known[:-1]))
    middles = (starts + np.append(starts[1:], known.size)) / 2  # equal numbers are in one bin
    edges = known[starts[np.searchsorted(middles, np.arange(1, BINS) * known.size / BINS).clip(max=starts.size - 1)]]
    shape = np.searchsorted(edges, numbers, side="right").astype(np.uint8)
    shape[~there] = NONE
    return shape


def _number(values: pl.Series) -> pl.Series:
    """Numbers of a column, those at the end of a text such as p17 among them."""
    if values.dtype == pl.String:
        values = values.alias("value").str.extract(r"(-?\d+)\s*$", 1)
    return values.cast(pl.Float64, strict=False)


def _counts(numbers: Hashes) -> bool:
    """Whether numbers only count: they fill a grid, such as 1 to n, more evenly than if each were drawn by itself."""
    known = numbers[~np.isnan(numbers)]
    distinct = _distinct(known)
    if known.size < numbers.size / 2 or distinct.size < FEWEST or not np.isfinite(distinct).all():
        return False
    places = _decimals(distinct)
    if places >= 9 or np.abs(distinct).max() >= 2.0**52 / 10**places:
        return False
    whole = np.round(distinct * 10.0**places).astype(np.int64)
    step = int(np.gcd.reduce(np.diff(whole))) or 1
    places_there = (int(whole[-1]) - int(whole[0])) // step + 1
    each = known.size / places_there
    drawn, spread = 1 - math.exp(-each), math.exp(-each) - (1 + each) * math.exp(-2 * each)
    filled = distinct.size / places_there
    return filled >= 1 / 3 and filled > drawn + 2.5 * math.sqrt(max(spread, 0.0) / places_there) + 1e-9


def _plain(values: pl.Series) -> pl.Series:
    """Values of any type as text: numbers as a float of 32 bits has them if they fit; words without case and punctuation.

    Of words that are one stem and a number, such as P0007, the number alone.
    """
    values = values.alias("value")
    text = pl.repeat(None, len(values), dtype=pl.String, eager=True)
    if values.dtype == pl.String:
        text = normal(values).str.to_lowercase().alias("value")
        bare = text.str.replace_all(r"[^\p{L}\p{N}]", "")
        stems = bare.str.extract(r"^(\p{L}+)\d+$", 1).drop_nulls()
        if len(stems) == len(bare.drop_nulls()) and len(stems) and (stems == stems[0]).all():
            values = bare.str.extract(r"(\d+)$", 1)
        else:
            values = text
            lettered = pl.when(bare.str.len_chars() > 0).then(bare).otherwise(text)
            text = pl.select(lettered).to_series()
    number = values.cast(pl.Float64, strict=False)
    short = (number.cast(pl.Float32, strict=False) + 0.0).cast(pl.String)
    if (number.abs() >= 2.0**24).any():  # rare, and twice the time
        large = pl.when(number.abs() >= 2.0**24).then((number + 0.0).cast(pl.String))
        short = pl.select(large.otherwise(short)).to_series()
    return short if text.null_count() == len(text) else pl.select(pl.coalesce(short, text)).to_series()


def _bits(values: pl.Series, numbers: Hashes, distinct: int) -> float:
    """How many values could stand there (log 2), had somebody made them up: few where they repeat, a range of whole numbers."""
    known = numbers[np.isfinite(numbers)]
    if distinct <= (len(values) - values.null_count()) / 2 or distinct < 2:
        return math.log2(max(1, distinct))
    if values.dtype == pl.String:
        stems = values.drop_nulls().str.extract(r"^(.*?)-?\d*\s*$", 1).n_unique()
        numbered = stems <= distinct / 10 and known.size == len(values) - values.null_count()  # such as p1, p2, p3
        return min(32.0, math.log2(stems) + _range(known)) if numbered else 32.0
    if values.dtype.is_float():
        return min(23.0, _range(known) + _decimals(known) * math.log2(10)) if known.size else 23.0
    return min(32.0, _range(known))


def _range(values: Hashes) -> float:
    return math.log2(max(2.0, float(values.max()) - float(values.min()) + 1)) if values.size else 1.0


def _decimals(values: Hashes) -> int:
    for places in range(9):
        for some in (values[:1000], values):  # most columns are told by few
            scaled = some * 10.0**places
            if not (np.abs(scaled - np.round(scaled)) <= 1e-9 * np.maximum(np.abs(scaled), 1.0)).all():
                break
        else:
            return places
    return 12


# Two tables


def same_people(new: Likeness, old: Likeness, new_unit: str, old_unit: str) -> bool:
    """Whether two tables are about the same people, as far as rows and ids tell; a unit is the name of the id, or "row"."""
    return same_rows(new, old, new_unit, old_unit) or any(
        _same_ids_of(new, old, a, b) for a, b in _ids(new, old, new_unit, old_unit)
    )


def same_rows(new: Likeness, old: Likeness, new_unit: str = "row", old_unit: str = "row") -> bool:
    """Whether more than a few rows of the smaller table are in the other, by columns that they share."""
    left_out = {_id(new_unit), *new.counted}, {_id(old_unit), *old.counted}
    pairs = [(a, b) for a, b in _shared(new, old) if a not in left_out[0] and b not in left_out[1]]
    told = sorted(pairs, key=lambda pair: -min(new.bits[pair[0]], old.bits[pair[1]]))
    some = told[: TRIED // 2] + told[TRIED // 2 :: max(1, (len(told) - TRIED // 2) // (TRIED // 2))][: TRIED // 2]
    owners = _owners(new, new_unit), _owners(old, old_unit)
    alike = [(a, b) for a, b in some if _alike(new.columns[a], old.columns[b])]
    if _common(new, old, alike, (new.columns, old.columns), owners):
        return True
    shaped = [(a, b) for a, b in some if a in new.shapes and b in old.shapes]
    return _common(new, old, shaped, (new.shapes, old.shapes), owners)


def _common(
    new: Likeness,
    old: Likeness,
    pairs: Sequence[tuple[str, str]],
    forms: tuple[Mapping[str, Hashes], Mapping[str, Hashes]],
    owners: tuple[Hashes | None, Hashes | None],
) -> bool:
    """Whether some set of these columns has more equal rows in both tables than chance gives."""
    if not pairs or not new.rows or not old.rows:
        return False
    mine, theirs = ([_mixed(form[pair[i]], at) for at, pair in enumerate(pairs)] for i, form in enumerate(forms))
    wanted = OVERLAP * min(new.rows, old.rows) * max(new.share, old.share)
    tallies = [_tally(a, b) for a, b in zip(mine, theirs, strict=True)]
    equal = [float((a * b).sum()) / (new.rows * old.rows) for a, b in tallies]
    repeated = [min(float((t * (t - 1)).sum()) / (t.sum() * (t.sum() - 1) or 1) for t in both) for both in tallies]
    # How often other people have a value that nobody has twice, such as a number that is given once, its own table can't tell.
    once = [max(a.max(), b.max()) == 1 and forms[0] is new.columns for a, b in tallies]
    chances = [2.0 ** -min(new.bits[a], old.bits[b]) if o else 0.0 for (a, b), o in zip(pairs, once, strict=True)]
    most = max(40, min(400, int(3e7 / (new.rows + old.rows))))
    for tried, columns in enumerate(_sets(len(pairs))):
        if tried == most:
            break
        cells = [np.bitwise_xor.reduce([side[c] for c in columns]) for side in (mine, theirs)]
        apart = math.prod(equal[c] for c in columns) if len(columns) > 1 else 0.0
        given = min((chances[c] for c in columns if once[c]), default=0.0)
        within = math.prod(repeated[c] for c in columns)
        if _beyond_chance(cells[0], cells[1], owners, max(apart, given), within, wanted):
            return True
    return False


def _sets(columns: int) -> Iterator[tuple[int, ...]]:
    """Sets of columns to compare: all, pairs, all but one or two, halves and thirds drawn at random, threes.

    Of three columns or more one alone doesn't decide: its values may be of a list, or mixed up.
    """
    seen: set[tuple[int, ...]] = set()
    everything = tuple(range(columns))
    draw = np.random.default_rng(0)

    def drawn(size: int, times: int) -> list[tuple[int, ...]]:
        return [tuple(sorted(draw.choice(columns, size, replace=False).tolist())) for _ in range(times)] if size > 1 else []

    chosen = [everything, *combinations(everything[:6], 2), *combinations(everything, columns - 1)]
    if 3 < columns <= 9:
        chosen += combinations(everything, columns - 2)
    chosen += drawn(columns // 2, 24) + drawn(columns // 3, 24) + list(combinations(everything[:6], 3))
    for some in chosen:
        if some and some not in seen:
            seen.add(some)
            yield some


def _beyond_chance(
    mine: Hashes, theirs: Hashes, owners: tuple[Hashes | None, Hashes | None], least: float, within: float, wanted: float
) -> bool:
    """Whether more rows are equal between two tables than different people's within each, by some standard deviations.

    With a and b people in a cell of n and m, the sum of a·b - (a·(a-1)·m/(n-1) + b·(b-1)·n/(m-1))/2 is how many people are in
    both, without bias: 0 in expectation for other people of one distribution, and less for people of another. ``least`` is the
    share of pairs that are equal by chance at least, as where the columns have nothing to do with each other, ``within`` that
    share inside a table: if rows avoid each other, the table was designed (each subject with each item), and tells nothing.
    """
    thinned = 0
    if max(mine.size, theirs.size) > 2 * COUNTED and _distinct(mine[:4096]).size > 1024:
        thinned = int(math.log2(max(mine.size, theirs.size) / COUNTED))
    a, b = (_people(cells, owner, thinned) for cells, owner in zip((mine, theirs), owners, strict=True))
    scale = 2.0**thinned
    n, m = (c.size * 1.0 if o is None else t.size * scale for c, o, t in zip((mine, theirs), owners, (a, b), strict=True))
    first, second = _tally(a, b)
    if n < 3 or m < 3 or _designed(first) or _designed(second):
        return False
    expected = within * (n * (n - 1) + m * (m - 1)) / 2
    repeated = float((first * (first - 1) + second * (second - 1)).sum()) * scale / 2
    if repeated < expected - 3 * math.sqrt(expected * scale):
        return False
    own = (first * (first - 1) * m / (n - 1) + second * (second - 1) * n / (m - 1)) / 2
    excess = first * second - own
    chance = max(float(own.sum()) * scale, n * m * least)
    shared = float((first * second).sum()) * scale - chance
    noise = math.sqrt(max(float((excess**2).sum()), 2 * chance / scale, 1.0)) * scale
    return shared >= wanted and (shared >= DEVIATIONS * noise or (not thinned and _rare(first, second, n, m, least)))


def _rare(first: Hashes, second: Hashes, n: float, m: float, least: float) -> bool:
    """Whether few equal rows are too many all the same: each is one person's, and hardly any are equal within a table."""
    both = (first > 0) & (second > 0)
    found = int(both.sum())
    if found < min(FEWEST, max(3, min(n, m) / 2)) or max(first[both].sum(), second[both].sum()) > 1.2 * found:
        return False
    repeated = float((first * (first - 1)).sum() + (second * (second - 1)).sum())
    measured = (repeated + 6) / (n * (n - 1) + m * (m - 1))
    return found >= 3 + 8 * n * m * (least if least and not repeated else measured)


def _designed(times: Hashes) -> bool:
    """Whether rows are spread over cells more evenly than people are: as a plan of an experiment does."""
    times = times[times > 0]
    return bool(times.size >= 4 and times.mean() >= 2 and times.var() < 0.4 * times.mean())


def _tally(mine: Hashes, theirs: Hashes) -> tuple[Hashes, Hashes]:
    """How many of each are in each cell of both (float64)."""
    tagged = np.sort(np.concatenate([mine | np.uint64(1), theirs & ~np.uint64(1)]))
    cells = tagged >> np.uint64(1)
    starts = np.flatnonzero(np.append(True, cells[1:] != cells[:-1]))
    times = np.diff(np.append(starts, cells.size)).astype(float)
    first = np.add.reduceat((tagged & np.uint64(1)).astype(float), starts)
    return first, times - first


def _people(cells: Hashes, owner: Hashes | None, thinned: int) -> Hashes:
    """Cells, each once for a person (their rows are alike), of one in 2^thinned cells."""
    if thinned:
        chosen = (cells >> np.uint64(40)) & np.uint64(2**thinned - 1) == 0
        cells, owner = cells[chosen], None if owner is None else owner[chosen]
    if owner is None:
        return cells
    _, first = np.unique(cells ^ _mixed(owner, 10**6), return_index=True)
    return cells[first]


def _mixed(values: Hashes, salt: int) -> Hashes:
    """64 bits that look drawn anew for each value and salt (splitmix64)."""
    mixed = values.astype(np.uint64) + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


# Ids


def same_ids(new: Hashes, old: Hashes) -> bool:
    """Whether more than a few ids of the smaller table are in the other."""
    return _overlap(_distinct(new), _distinct(old), 0.0)


def _ids(new: Likeness, old: Likeness, new_unit: str, old_unit: str) -> list[tuple[str, str]]:
    """Columns of two tables that may name the same people: their ids, or one's id and columns of the other."""
    by_id = [_owners(table, unit) is not None for table, unit in ((new, new_unit), (old, old_unit))]
    if all(by_id):
        return [(new_unit, old_unit)]
    if by_id[0]:
        return [(new_unit, n) for n in _naming(old, new_unit)]
    return [(n, old_unit) for n in _naming(new, old_unit)] if by_id[1] else []


def _naming(table: Likeness, unit: str) -> list[str]:
    """Columns of a table that may hold another's ids: those that only count if they have its name."""
    return [n for n in table.columns if _key(n) == _key(unit) or n not in table.counted]


def _same_ids_of(new: Likeness, old: Likeness, new_id: str, old_id: str) -> bool:
    """Whether ids are in both, more than if drawn from as many; ids of few people that only count need equal values."""
    mine, theirs = _distinct(new.columns[new_id]), _distinct(old.columns[old_id])
    if new_id in new.counted or old_id in old.counted:
        small = min(mine.size, theirs.size) < SMALL
        return _overlap(mine, theirs, 0.0) and (not small or same_values(new, old, new_id, old_id))
    chance = mine.size * theirs.size * 2.0 ** -min(new.bits[new_id], old.bits[old_id])
    return _overlap(mine, theirs, chance)


def same_values(new: Likeness, old: Likeness, new_id: str, old_id: str) -> bool:
    """Whether people with equal ids have equal values in a column that both tables have, more than people with near ids.

    For ids such as 1 to n, which unrelated tables share, and whose first half may have had the drug in both.
    """
    pairs = [(a, b) for a, b in _shared(new, old) if a != new_id and b != old_id and not (a in new.counted or b in old.counted)]
    if new_id not in new.columns or old_id not in old.columns:
        return False
    mine, theirs = new.columns[new_id].astype(np.uint64), old.columns[old_id].astype(np.uint64)
    ids, first = np.unique(mine, return_index=True)
    common = ids[np.argsort(first)]  # in the order of their numbers
    common = common[np.isin(common, theirs)]
    if common.size < FEWEST:
        return False
    order = np.argsort(common)
    here = np.isin(mine, common)
    places = order[np.searchsorted(common[order], mine[here])]
    others = [common[(places + by) % common.size] for by in (1, 2, 3, 4, 5, 6, common.size // 2)]
    for a, b in pairs:
        values, known = (t.columns[n].astype(np.uint64) for t, n in ((new, a), (old, b)))
        there = _distinct((theirs << np.uint64(32)) | known)
        equal, *turned = (np.isin((ids << np.uint64(32)) | values[here], there).mean() for ids in (mine[here], *others))
        chance = float(max(turned))
        if equal > chance + AGREEMENT + 3 * math.sqrt(chance * (1 - chance) / common.size):
            return True
    return False


def _overlap(first: Hashes, second: Hashes, chance: float) -> bool:
    smaller = min(first.size, second.size)
    shared = np.intersect1d(first, second, assume_unique=True).size
    return bool(smaller and shared > OVERLAP * smaller + chance + DEVIATIONS * math.sqrt(chance))


def dense(ids: pl.Series) -> bool:
    """Whether ids only count, such as 1 to n, or 10, 20, 30."""
    return _counts(_number(normal(ids).unique()).to_numpy())


# Which columns are the same


def _shared(new: Likeness, old: Likeness) -> list[tuple[str, str]]:
    """Columns that two tables share: by name, else by their values, by how often each value is there, or by their order.

    A wrong pair tells nothing and hides nothing: sets of columns without it are compared too.
    """
    theirs = {_key(n): n for n in old.columns}
    pairs = [(n, theirs[_key(n)]) for n in new.columns if _key(n) in theirs]
    left = [n for n in new.columns if n not in {a for a, _ in pairs}]
    others = [n for n in old.columns if n not in {b for _, b in pairs}]
    if not left or not others:
        return pairs
    for rule in (_by_values, _by_times, _in_order):
        found = rule(new, old, left, others)
        pairs += found
        left = [n for n in left if n not in {a for a, _ in found}]
        others = [n for n in others if n not in {b for _, b in found}]
    return pairs


def _by_values(new: Likeness, old: Likeness, left: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of columns of many values, most of the smaller one's in the other: by those whose hashes are least."""
    least = {id(t): {n: _distinct(t.columns[n])[:256] for n in names} for t, names in ((new, left), (old, others))}
    mine, theirs = least[id(new)], {n: v for n, v in least[id(old)].items() if v.size >= 20}
    if not theirs:
        return []
    values = np.concatenate(list(theirs.values()))
    columns = np.repeat(np.arange(len(theirs)), [v.size for v in theirs.values()])
    order = np.argsort(values, kind="stable")
    values, columns = values[order], columns[order]
    names, pairs, taken = list(theirs), [], set[str]()
    for name in left:
        own = mine[name]
        if own.size < 20:
            continue
        low, high = np.searchsorted(values, own, "left"), np.searchsorted(values, own, "right")
        hits = np.concatenate([columns[i:j] for i, j in zip(low, high, strict=True)])
        for at in np.argsort(-np.bincount(hits, minlength=len(names)))[:3] if hits.size else ():
            other = theirs[names[at]]
            top = min(own[-1], other[-1])  # both lists are whole up to here
            smaller = min(int((own <= top).sum()), int((other <= top).sum()))
            common = np.intersect1d(own, other, assume_unique=True).size
            if names[at] not in taken and common >= 10 and common > smaller / 2:
                pairs.append((name, names[at]))
                taken.add(names[at])
                break
    return pairs


def _by_times(new: Likeness, old: Likeness, left: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of columns of few values, each as often there: renamed and written otherwise at once."""

    def times(table: Likeness, name: str) -> tuple[int, ...]:
        return tuple(sorted(_sizes(table.columns[name]).tolist())[-FEW:])

    waiting: dict[tuple[int, ...], list[str]] = {}
    for name in others:
        waiting.setdefault(times(old, name), []).append(name)
    found = []
    for name in left:
        same = waiting.get(times(new, name))
        if same:
            found.append((name, same.pop(0)))
    return found


def _in_order(new: Likeness, old: Likeness, left: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(left, others, strict=True)) if len(left) == len(others) else []


def _alike(first: Hashes, second: Hashes) -> bool:
    """Whether a column has any values in both tables."""
    a, b = _distinct(first), _distinct(second)
    smaller = min(a.size, b.size)
    return bool(smaller and np.intersect1d(a, b, assume_unique=True).size > OVERLAP * smaller)


def _key(name: str) -> str:
    return "".join(ch for ch in name.casefold() if ch.isalnum())


# A mock and its table


def shared_rows(mock: pl.DataFrame, table: pl.DataFrame) -> int:
    """How many rows of a mock are rows of the table but for a column or two, if more than made-up ones would be; 0 otherwise.

    Those count that one row of the table has. Rows made up as the table's are would meet such rows as often as rows of the
    table meet each other (Good 1953), rows made up column by column as often as the columns' values say: the largest counts.
    """
    names = [n for n in mock.columns if n in table.columns]
    if not names or not mock.height or not table.height:
        return 0
    forms = [[_plain(f.get_column(n)).hash(1, 2, 3, 4).to_numpy() for n in names] for f in (mock, table)]
    columns = [table.get_column(n) for n in names]
    bits = [_bits(c, _number(c).to_numpy(), _distinct(h).size) for c, h in zip(columns, forms[1], strict=True)]
    mine, theirs = ([_mixed(h, at) for at, h in enumerate(form)] for form in forms)
    shares = [_shares(h, b) for h, b in zip(forms[1], bits, strict=True)]
    most = 0
    for some in _sets(len(names)):
        if len(some) >= max(1, len(names) - 2) or len(some) >= len(names) // 2 > 2:
            own, private = (np.bitwise_xor.reduce([side[c] for c in some]) for side in (mine, theirs))
            most = max(most, _unlikely(own, private, [bits[c] for c in some], [shares[c] for c in some]))
    return most


def _shares(values: Hashes, bits: float) -> Hashes:
    """For each row how often a made-up column would have its value: as often as it is there, or as its bits say if once."""
    _, places, times = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(np.where(times == 1, min(1 / values.size, 2.0**-bits), times / values.size)[places])


def _unlikely(mock: Hashes, table: Hashes, bits: Sequence[float], shares: Sequence[Hashes]) -> int:
    """How many rows of a mock equal a row that the table has once, if that is more than chance; 0 otherwise."""
    cells, at, times = np.unique(table, return_index=True, return_counts=True)
    alone = cells[times == 1]
    equal = int(np.isin(mock, alone).sum())
    found = min(equal, int(np.isin(alone, mock).sum()))
    if not found:
        return 0
    pairs = int((times == 2).sum())
    measured = 2 * pairs / table.size
    if pairs < FEWEST:  # too few to measure by, unless the column that tells most bounds it
        measured = max(measured, min(2 * (pairs + 3) / table.size, alone.size * 2.0 ** -max(bits)))
    apart = np.prod([s[at[times == 1]] for s in shares], axis=0).sum()
    expected = mock.size * min(1.0, max(measured, float(apart), alone.size * 2.0 ** -sum(bits)))
    return equal if found > 1.5 * expected + 4 * math.sqrt(expected) else 0
