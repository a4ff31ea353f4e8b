"""The same people are known again in another table's clothes; unrelated small tables, and made-up mocks, are let be."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.kernel.resemblance import Likeness, dense, likeness, normal, same_ids, same_rows, same_values, shared_rows

SEEDS = (1, 2, 3, 4)
draw = np.random.default_rng(0)
PEOPLE = pl.DataFrame(
    {
        "pid": [f"p{i}" for i in range(500)],
        "age": draw.normal(50, 12, 500),
        "sex": draw.choice(["f", "m"], 500),
        "visits": draw.integers(0, 400, 500),
    }
)


def others(n, seed=1):
    make = np.random.default_rng(seed)
    return pl.DataFrame({"pid": [f"p{i}" for i in range(n)], "age": make.normal(50, 12, n), "sex": make.choice(["f", "m"], n),
                         "visits": make.integers(0, 400, n)})  # fmt: skip


def of(frame):
    return likeness(frame, SEEDS)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t,
        lambda t: t.with_columns(wave=1),
        lambda t: t.drop("age"),
        lambda t: t.cast({"age": pl.Float32, "visits": pl.Float64}),
        lambda t: t.with_columns(pl.col("visits").cast(pl.String) + " "),
        lambda t: t.select(reversed(t.columns)),
        lambda t: t.rename({"age": "Alter", "pid": "number"}),
        lambda t: t.rename({"age": " AGE", "visits": "Visits_"}).drop("pid"),
        lambda t: t.sample(fraction=0.3, seed=1),
        lambda t: t.sample(fraction=1.0, shuffle=True, seed=1),
        lambda t: t.with_columns(pl.col("age") + 1),
        lambda t: pl.concat([others(300, 7), t.head(100)]),
    ],
)
def test_the_same_rows_are_known_again(change):
    assert same_rows(of(change(PEOPLE)), of(PEOPLE)) and same_rows(of(PEOPLE), of(change(PEOPLE)))


@pytest.mark.parametrize("seed", range(5))
def test_other_people_are_not_taken_for_them(seed):
    other = others(300, seed + 10)
    for frame in (other, other.drop("age"), other.select("sex", "visits"), other.select("pid")):
        assert not same_rows(of(frame), of(PEOPLE))


def test_small_tables_that_count_from_one_are_not_taken_for_each_other():
    few, more = (pl.DataFrame({"id": range(1, n), "x": np.random.default_rng(n).integers(0, 9, n - 1)}) for n in (201, 301))
    assert not same_rows(of(few), of(more))
    assert dense(few.get_column("id")) and not same_values(of(few), of(more), "id", "id")
    assert same_ids(*(f.get_column("id").hash(*SEEDS).to_numpy() for f in (few, more)))
    assert not dense(pl.Series([17, 4096, 99_123]))


@pytest.mark.parametrize("change", [lambda t: t.select("id", "age"), lambda t: t.head(100), lambda t: t.rename({"id": "nr"}), lambda t: t.sample(fraction=1.0, shuffle=True, seed=1)])  # fmt: skip
def test_people_counted_from_one_are_known_by_their_values(change):
    make = np.random.default_rng(5)
    table = pl.DataFrame(
        {"id": np.repeat(np.arange(200), 2), "age": make.integers(20, 80, 400), "sex": make.choice(["f", "m"], 400)}
    )
    other = table.with_columns(age=pl.Series(make.integers(20, 80, 400)), sex=pl.Series(make.choice(["f", "m"], 400)))
    key = change(table).columns[0]
    assert same_values(of(change(table)), of(table), key, "id")
    assert not same_values(of(change(other)), of(table), key, "id")


@pytest.mark.parametrize(
    "made",
    [
        lambda n, draw: {"id": range(1, n), "seq": range(1, n)},
        lambda n, draw: {"id": range(1, n), "day": [i // 10 for i in range(1, n)]},
        lambda n, draw: {"id": range(1, 10 * n - 9, 10), "x": draw.integers(0, 9, n - 1)},
    ],
)
def test_columns_that_only_count_are_in_unrelated_tables_too(made):
    few, more = (pl.DataFrame(made(n, np.random.default_rng(n))) for n in (201, 301))
    assert dense(few.get_column("id"))
    assert not same_rows(likeness(few, SEEDS, "id"), likeness(more, SEEDS, "id"))
    assert not same_values(likeness(few, SEEDS, "id"), likeness(more, SEEDS, "id"), "id", "id")


def test_coarse_rows_are_known_by_how_often_they_are_there():
    def coarse(seed):
        make = np.random.default_rng(seed)
        return pl.DataFrame(
            {"age": make.integers(20, 80, 500), "sex": make.choice(["f", "m"], 500), "ward": make.integers(0, 4, 500)}
        )

    assert same_rows(of(coarse(1).sample(fraction=1.0, shuffle=True, seed=2)), of(coarse(1)))
    assert not any(same_rows(of(coarse(seed)), of(coarse(1))) for seed in range(2, 12))


def test_answers_of_a_few_questions_are_equal_by_chance():
    survey = [pl.DataFrame({f"q{i}": np.random.default_rng(s + i).integers(0, 3, 400) for i in range(6)}) for s in (0, 100)]
    assert not same_rows(of(survey[0]), of(survey[1]))


@given(st.lists(st.sampled_from(["7", " 7", "7 ", "07", "7.0", "\t007", "\u00a07", "7.00"]), min_size=1))
def test_an_id_has_one_way_to_be_written(ways):
    assert set(normal(pl.Series(ways)).to_list()) == {"7"}


def test_empty_ids_are_none_and_others_stay_apart():
    assert normal(pl.Series(["", "  ", None, "\t"])).to_list() == [None] * 4
    apart = ["7", "70", "A07", "A7", "-7", "7.5", "0", "1e3", "0x7"]
    assert normal(pl.Series(apart)).n_unique() == len(apart)
    assert normal(pl.Series([7.0, float("nan"), None])).to_list() == ["7", None, None]
    assert normal(pl.Series([2**63 + 1, 2**63 + 2], dtype=pl.UInt64)).n_unique() == 2


def test_a_likeness_is_kept_and_read_again(tmp_path):
    made = of(PEOPLE)
    np.savez(tmp_path / "t.npz", **made.arrays())
    with np.load(tmp_path / "t.npz", allow_pickle=False) as kept:
        again = Likeness.of_arrays(kept)
    assert (again.rows, again.bits, again.counted) == (500, made.bits, made.counted)
    assert "pid" in made.counted and "age" not in made.counted
    assert all(np.array_equal(again.columns[n], made.columns[n]) for n in made.columns)
    assert same_rows(again, made)
    assert not same_rows(likeness(PEOPLE, (9, 9, 9, 9)), made)  # another owner's key


# Mocks


def test_rows_of_the_table_in_a_mock_are_found():
    assert shared_rows(PEOPLE.head(20), PEOPLE) == 20
    assert shared_rows(PEOPLE.select("age", "sex").head(1), PEOPLE) == 1
    assert shared_rows(pl.concat([others(99), PEOPLE.head(1)]), PEOPLE) == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_made_up_mock_is_let_be(seed):
    make = np.random.default_rng(seed)
    private = pl.DataFrame({"age": make.integers(0, 90, 300), "sex": make.choice(["f", "m"], 300)})
    mock = pl.DataFrame({"age": make.integers(0, 90, 100), "sex": make.choice(["f", "m"], 100)})
    assert shared_rows(mock, private) == 0
    assert shared_rows(others(100, seed), PEOPLE) == 0
