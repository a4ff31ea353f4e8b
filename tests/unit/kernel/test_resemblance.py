"""The same people are known again in another table's clothes; unrelated small tables, and made-up mocks, are let be."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.kernel.resemblance import (
    Likeness,
    dense,
    likeness,
    normal,
    same_ids,
    same_people,
    same_rows,
    same_values,
    shared_rows,
)

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
    assert shared_rows(others(100, seed + 1), PEOPLE) == 0  # seed 0 drew PEOPLE


# Columns made anew hide nothing


def hospital(seed, n=1500):
    make = np.random.default_rng(seed)
    return pl.DataFrame(
        {"age": make.integers(18, 95, n), "sex": make.integers(0, 2, n), "income": make.integers(10_000, 90_000, n),
         "chol": make.normal(5, 1, n).round(3)}
    )  # fmt: skip


def labs(seed, n=1500):
    make = np.random.default_rng(seed)
    return pl.DataFrame({f"lab{i}": make.normal(50, 9, n).round(2) for i in range(4)} | {"age": make.integers(18, 95, n)})


def answers(seed, n=1000):
    make = np.random.default_rng(seed)
    return pl.DataFrame({f"q{i}": make.random(n) < 0.2 + 0.02 * i for i in range(30)})


LABS = pl.col("^lab.*$")
CHANGES = {
    "30 columns more": (hospital, lambda t: t.with_columns(**{f"e{i}": pl.Series(draw.normal(size=t.height)) for i in range(30)})),
    "a year later": (hospital, lambda t: t.with_columns(pl.col("age") + 1)),
    "a year later, and sex recoded": (hospital, lambda t: t.with_columns(pl.col("age") + 1, pl.col("sex") + 1)),
    "half of them, incomes in blocks": (hospital, lambda t: t.sample(fraction=0.5, seed=1).with_columns(pl.col("income") // 1000)),
    "another unit": (labs, lambda t: t.sample(fraction=0.5, seed=1).with_columns(LABS * 10)),
    "a decimal less": (labs, lambda t: t.sample(fraction=0.5, seed=1).with_columns(LABS.round(1))),
    "degrees of Fahrenheit": (labs, lambda t: t.with_columns(LABS * 1.8 + 32)),
    "as text": (answers, lambda t: t.cast(pl.String)),
    "in words": (answers, lambda t: t.select(pl.when(pl.all()).then(pl.lit("yes")).otherwise(pl.lit("no")).name.keep())),
    "renamed": (answers, lambda t: t.rename(lambda n: f"question {n[1:]} answer").reverse()),
    "renamed, and as numbers": (answers, lambda t: t.cast(pl.Int64).rename(lambda n: f"s_{n}").sample(fraction=1.0, shuffle=True, seed=3)),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_columns_made_anew_hide_nothing(change):
    make, changed = CHANGES[change]
    assert same_rows(of(changed(make(1))), of(make(1))) and same_rows(of(make(1)), of(changed(make(1))))
    assert not same_rows(of(changed(make(2))), of(make(1))) and not same_rows(of(make(1)), of(changed(make(2))))


# Unrelated tables


def skewed(make, n):
    often = [np.minimum(make.zipf(1.6, n), most) for most in (200, 20)]
    age = np.clip(make.normal(60, 18, n), 0, 99).astype(int)
    return {"age": age, "birth_year": 2024 - age, "diagnosis": often[0], "ward": often[1], "sex": make.integers(0, 2, n)}


def bodies(make, n):
    height, weight = make.normal(170, 10, n).round(), make.normal(75, 14, n).round()
    return {"height": height, "weight": weight, "bmi": (weight / (height / 100) ** 2).round(1)}


def repeated(make, n):
    person = make.integers(0, n // 3, n)
    return {"age": make.integers(0, 60, n)[person], "sex": make.integers(0, 2, n)[person], "cost": make.integers(0, 500, n)}


def coarse(make, n):
    return {"age": make.integers(0, 6, n), "sex": make.integers(0, 2, n), "region": make.choice(list("NSEW"), n)}


def mostly_missing(make, n):
    values = [np.where(make.random(n) < share, np.nan, make.normal(size=n)) for share in (0.8, 0.9)]
    return {"x": values[0], "y": values[1], "age": make.integers(18, 90, n)}


def numbered(make, n):
    person = np.repeat(np.arange(n // 3), 1 + make.poisson(2, n // 3))
    return {"pid": person, "score": make.integers(0, 5, person.size)}


def record_numbers(make, n):
    return {
        "mrn": make.choice(900_000, n, replace=False) + 100_000,
        "sex": make.integers(0, 2, n),
        "same": make.integers(0, 9, n),
    }


def one_trait(make, n):
    trait = make.normal(size=n)
    return {f"q{i}": np.clip((trait + make.normal(size=n)).round(), -2, 2) for i in range(12)}


def planned(make, n):
    at = np.arange(n)
    return {"subject": at // 40, "trial": at % 40, "condition": at % 2, "time": make.normal(500, 80, n).round()}


@pytest.mark.parametrize(
    "made", [skewed, bodies, repeated, coarse, mostly_missing, numbered, record_numbers, one_trait, planned]
)
@pytest.mark.parametrize(("few", "more"), [(12, 15), (60, 2000), (1500, 1500), (2000, 2600)])
def test_unrelated_tables_are_let_be(made, few, more):
    for seed in (1, 2):
        tables = [of(pl.DataFrame(made(np.random.default_rng([seed, i]), n))) for i, n in enumerate((few, more))]
        assert not same_rows(*tables)


@pytest.mark.parametrize("n", [2000, 100_000])
def test_coarse_surveys_are_let_be_and_finer_ones_known(n):
    survey = [of(pl.DataFrame(coarse(np.random.default_rng(seed), n))) for seed in (1, 2)]
    assert not same_rows(*survey)
    finer = [pl.DataFrame(coarse(np.random.default_rng(seed), n)).with_columns(work=np.random.default_rng(seed + 9).integers(0, 9, n)) for seed in (1, 2)]  # fmt: skip
    assert not same_rows(*map(of, finer))
    assert same_rows(of(finer[0]), of(finer[0].sample(fraction=1.0, shuffle=True, seed=1)))


# Ids


def test_ids_are_known_by_row_and_in_another_dress():
    count = np.arange(1, 1501)
    ages, costs = (pl.DataFrame({"pid": count, name: draw.integers(0, 900, 1500)}) for name in ("age", "cost"))
    by_id = likeness(ages, SEEDS, "pid")
    assert same_people(by_id, of(costs), "pid", "row") and same_people(of(costs), by_id, "row", "pid")
    assert not same_people(by_id, of(costs.rename({"pid": "line"})), "pid", "row")  # any table's lines are 1 to n
    for dress in (lambda i: f"P{i:05d}", lambda i: f"p-{i}", lambda i: f" {i}.0"):
        other = costs.with_columns(pid=pl.Series([dress(i) for i in count]))
        assert same_people(likeness(other, SEEDS, "pid"), by_id, "pid", "pid")
    lower, upper = (pl.DataFrame({"pid": [case(f"a{i * 7919:x}x") for i in count]}) for case in (str.lower, str.upper))
    assert same_people(likeness(lower, SEEDS, "pid"), likeness(upper, SEEDS, "pid"), "pid", "pid")


def test_record_numbers_meet_by_chance_as_often_as_there_are_few():
    def drawn(seed):
        ids = np.random.default_rng(seed).choice(900_000, 30_000, replace=False) + 100_000
        return likeness(pl.DataFrame({"mrn": ids}), SEEDS, "mrn")

    assert not same_people(drawn(1), drawn(2), "mrn", "mrn")  # 1 000 of them are in both, 3 %
    assert same_people(drawn(1), drawn(1), "mrn", "mrn")


def test_two_trials_whose_first_half_had_the_drug_are_let_be():
    def trial(seed, n=200):
        values = np.random.default_rng(seed).normal(size=n).round(3)
        return likeness(pl.DataFrame({"pid": range(1, n + 1), "arm": ["drug"] * (n // 2) + ["none"] * (n // 2), f"y{seed}": values}), SEEDS, "pid")  # fmt: skip

    assert not same_people(trial(1), trial(2), "pid", "pid")


# Mocks with columns made anew


RECORDS = pl.DataFrame(
    {"name": [f"Person {draw.integers(10**9)}" for _ in range(2000)], "age": draw.integers(18, 95, 2000),
     "zip": draw.integers(10_000, 99_999, 2000), "income": draw.normal(40_000, 9000, 2000).round(2)}
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        pl.lit("Anon").alias("name"),
        pl.col("name").str.to_uppercase(),
        pl.col("age") + 1,
        pl.col("income").round(0),
        [pl.lit("Anon").alias("name"), pl.col("age") + 1],
    ],
)
def test_rows_in_a_mock_are_found_but_for_a_column_or_two(change):
    assert shared_rows(RECORDS.head(20).with_columns(change), RECORDS) == 20


@pytest.mark.parametrize("made", [skewed, bodies, coarse, one_trait, mostly_missing, numbered])
@pytest.mark.parametrize("n", [60, 2000])
def test_mocks_made_up_as_the_table_is_are_let_be(made, n):
    for seed in range(5):
        table, mock = (pl.DataFrame(made(np.random.default_rng([seed, i]), size)) for i, size in enumerate((n, 100)))
        assert shared_rows(mock, table) == 0
        assert shared_rows(mock.with_columns(pl.all().shuffle(1)), table) == 0


def test_a_likeness_of_an_older_version_is_read():
    kept = {n: a for n, a in of(PEOPLE).arrays().items() if n not in ("shaped", "shapes", "share")}
    assert same_rows(Likeness.of_arrays(kept), of(PEOPLE))


def test_of_a_large_table_a_sample_is_kept_that_tells():
    make = np.random.default_rng(3)
    large = pl.DataFrame({"age": make.integers(18, 95, 400_000), "x": make.normal(size=400_000), "zip": make.integers(0, 90_000, 400_000)})  # fmt: skip
    whole, part = of(large), of(large.sample(200_000, seed=2, shuffle=True).with_columns(pl.col("age") + 1))
    assert whole.rows < 400_000 and whole.share < 1 and same_rows(whole, part)


# Columns with names of ours, and running numbers


def test_a_column_called_row_is_a_column_like_others():
    def counted(seed, n=3000):
        make = np.random.default_rng(seed)
        return pl.DataFrame({"row": np.arange(1, n + 1), "x": make.normal(size=n), "y": make.normal(size=n)})

    assert not same_people(of(counted(1)), of(counted(2)), "row", "row")
    table = PEOPLE.select(pl.col("age").alias("row"))
    assert same_people(of(table), of(table.sample(fraction=0.5, seed=1)), "row", "row")


def test_running_numbers_tell_between_a_mock_and_its_table():
    def records(seed, n=600):
        make = np.random.default_rng(seed)
        return pl.DataFrame(
            {"age": make.integers(0, 100, n), "los": make.exponential(5, n).round(2), "cost": make.lognormal(8, 1, n).round(2),
             "ward": make.choice(["er", "icu"], n), "mrn": [f"MRN{i:06d}" for i in range(n)]}
        )  # fmt: skip

    table = records(1)
    assert shared_rows(table.head(40).with_columns(pl.col("los", "cost") + 0.01), table) == 40
    assert shared_rows(records(2).head(40), table) == shared_rows(records(2), table) == 0
