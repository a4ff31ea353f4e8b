"""Publishing: what is kept, what is dropped, and one clear refusal for every odd setting."""

import stat
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.errors import StateError, UsageError
from syft_lab.kernel.store import Store, Terms, prepare
from syft_lab.spec import DTYPES


def terms(unit="id", k=2, **more):
    return Terms(unit, k, **more)


KEY = bytes(range(32))
FRAME = pd.DataFrame({"id": [1, 1, 1, 2, None], "age": [10, 20, 30, 40, 50], "ward": ["a", "b", "zz", None, "a"]})


def test_rows_beyond_the_contributions_and_without_an_id_are_dropped():
    made = prepare(FRAME, terms(), "generate")
    assert made.table["v0"].to_list() in ([10, 20, 40], [10, 30, 40], [20, 30, 40])
    assert (made.rows, made.dropped) == (3, 2)


def test_a_nan_id_is_nobodys_in_parquet_too(tmp_path):
    pl.DataFrame({"id": [1.0, float("nan"), float("nan"), None], "x": [1, 2, 3, 4]}).write_parquet(tmp_path / "t.parquet")
    assert prepare(tmp_path / "t.parquet", terms(), "generate").table["v0"].to_list() == [1]


def test_the_id_column_is_not_kept_and_not_shown():
    made = prepare(FRAME, terms(), "generate")
    assert [c.name for c in made.schema.columns] == ["age", "ward"]
    assert "id" not in made.mock.columns


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=40), st.integers(1, 3), st.integers(0, 4))
def test_what_is_kept_of_one_person_does_not_depend_on_others(rows, k, person):
    def kept_of(rows, who):
        made = prepare(
            pd.DataFrame({"id": [r[0] for r in rows], "x": [r[0] * 100 + r[1] for r in rows]}), terms(k=k), "generate", KEY
        )
        return [v for v in made.table["v0"].to_list() if v // 100 in who]

    others = set(range(5)) - {person}
    without = [r for r in rows if r[0] != person]
    if without:
        assert kept_of(rows, others) == kept_of(without, others)
    assert sorted(kept_of(rows, set(range(5)))) == sorted(kept_of(rows[::-1], set(range(5))))  # whatever the order
    assert len(kept_of(rows, {person})) == min(k, sum(r[0] == person for r in rows))


def test_large_unsigned_ids_are_told_apart():
    ids = np.array([2**63 + 1, 2**63 + 2, 2**63 + 3], dtype=np.uint64)
    assert prepare(pd.DataFrame({"id": ids, "x": [1, 2, 3]}), terms(k=1), "generate").rows == 3


def test_categories_become_codes_and_what_was_not_declared_becomes_null():
    made = prepare(FRAME, terms("row", 1, categories={"ward": ["b", "a"]}), "generate")
    assert made.table["g2"].to_list() == [1, 0, None, None, 1]
    assert "v2" not in made.table.columns


def test_nan_becomes_null_and_infinity_stays():
    made = prepare(pd.DataFrame({"x": [1.0, np.nan, np.inf]}), terms("row", 1), "generate")
    assert made.table["v0"].to_list() == [1.0, None, np.inf]


def test_columns_that_can_not_be_queried_are_left_out_by_name():
    frame = pd.DataFrame({"x": [1], "when": pd.to_datetime(["2024-01-01"])})
    assert prepare(frame, terms("row", 1), "generate").skipped == ("when",)


@pytest.mark.parametrize(
    ("data", "given", "word"),
    [
        (FRAME, terms("nobody"), "neither 'row' nor a column"),
        (FRAME, terms(k=0), "whole number from 1"),
        (FRAME, terms(k=True), "whole number from 1"),
        (FRAME, terms("row", 2), "max_contributions is 1"),
        (FRAME, terms(max_rows=0), "public upper bound"),
        (FRAME, terms(max_rows=2), "more rows than max_rows"),
        (FRAME, terms(bounds={"nope": (0, 1)}), "no column"),
        (FRAME, terms(bounds={"id": (0, 1)}), "no column"),
        (FRAME, terms(bounds={"age": (1, 1)}), "low < high"),
        (FRAME, terms(bounds={"age": (0, float("inf"))}), r"below 2\*\*53"),
        (FRAME, terms(bounds={"age": (0, float("nan"))}), r"below 2\*\*53"),
        (FRAME, terms(bounds={"age": 5}), "low, high"),
        (FRAME, terms(bounds={"age": (0.5, 3)}), "whole"),
        (FRAME, terms(bounds={"ward": (0, 1)}), "only numbers"),
        (FRAME, terms(categories={"ward": "abc"}), "give a list"),
        (FRAME, terms(categories={"ward": ["a", "a"]}), "different"),
        (FRAME, terms(categories={"ward": [1]}), "must be str"),
        (FRAME, terms(categories={"ward": []}), "1 to"),
        (FRAME, terms(categories={"age": [2**70]}), "must be int"),
        (pd.DataFrame({"x": [1.5]}), terms("row", 1, categories={"x": [1.5]}), "text, integers"),
        (pd.DataFrame({"when": pd.to_datetime(["2024-01-01"])}), terms("row", 1), "no column that can be published"),
        (pd.DataFrame({0: [1]}), terms("row", 1), "must be text"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), terms("row", 1), "two columns"),
        ([1, 2], terms("row", 1), "not list"),
        (FRAME, terms(bounds={"age": "05"}), "low, high"),
        (FRAME, terms(categories={"age": 5}), "give a list"),
        (FRAME, terms(kinds={"age": ["int"]}), "is none"),
        (FRAME, terms(categories={"age": [np.arange(2)]}), "must be int"),
        (pl.DataFrame({"x": [b"a"]}), terms("row", 1, kinds={"x": "int"}), "kinds of x"),
        ("missing.parquet", terms("row", 1), "no Parquet file"),
    ],
)
def test_odd_settings_are_refused_by_name(data, given, word):
    with pytest.raises(UsageError, match=word):
        prepare(data, given, "generate")


def test_a_column_of_mixed_types_is_refused_without_showing_a_value():
    with pytest.raises(UsageError, match="mixes types") as caught:
        prepare(pd.DataFrame({"x": [1, "patient 17"]}), terms("row", 1), "generate")
    assert "17" not in str(caught.value)


def test_no_column_name_is_taken_for_a_pattern_or_for_one_of_ours():
    names = ["*", "^.*$", "v0", "g1", "value", "unit", "len", "\0" + "0", "<img src=x>", "ä b"]
    frame = pd.DataFrame({name: [i, i] for i, name in enumerate(names)} | {"^id$": [1, 2]})
    made = prepare(frame, terms("^id$", 1, categories={"*": [0, 1], "^.*$": [1, 2]}), "generate")
    assert [c.name for c in made.schema.columns] == names
    assert [made.table[f"v{i}"].to_list() for i in range(len(names))] == [[i, i] for i in range(len(names))]
    assert made.table["g1"].to_list() == [0, 0]
    assert prepare(frame, terms("^id$", 1), frame.drop(columns="^id$").copy()).mock.columns == names


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        (pd.Series([1, None], dtype="Int64"), "int", [1, None]),
        (pd.Series([True, None], dtype="boolean"), "bool", [True, None]),
        (pd.Series([True, None], dtype=object), "bool", [True, None]),
        (pd.Series(["a", None], dtype="string"), "text", ["a", None]),
        (pd.Series(["a", None], dtype="category"), "text", ["a", None]),
        (pd.Series([1, 2], dtype="uint8"), "int", [1, 2]),
        (pd.Series([1.5, np.nan], dtype="float32"), "float", [1.5, None]),
    ],
)
def test_every_usual_pandas_type_is_taken(column, kind, values):
    made = prepare(pd.DataFrame({"x": column}), terms("row", 1), "generate")
    assert (made.schema.columns[0].kind, made.table["v0"].to_list()) == (kind, values)


def test_parquet_files_and_folders_are_read(tmp_path):
    (tmp_path / "parts").mkdir()
    for i in range(3):
        pl.DataFrame({"x": [i]}).write_parquet(tmp_path / "parts" / f"{i}.parquet")
    assert prepare(tmp_path / "parts", terms("row", 1), "generate").rows == 3
    assert prepare(tmp_path / "parts" / "1.parquet", terms("row", 1), "generate").table["v0"].to_list() == [1]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match="no Parquet file that can be read"):
        prepare(tmp_path / "broken.parquet", terms("row", 1), "generate")


def test_a_generated_mock_depends_on_the_schema_alone():
    one = prepare(FRAME, terms(bounds={"age": (0, 110)}, categories={"ward": ["a"]}), "generate").mock
    other = prepare(
        FRAME.assign(age=FRAME.age + 1, ward="a"), terms(bounds={"age": (0, 110)}, categories={"ward": ["a"]}), "generate"
    ).mock
    assert one.equals(other)
    assert one["age"].is_between(0, 110).all()


def test_an_own_mock_must_fit_and_must_not_be_the_table():
    with pytest.raises(UsageError, match="private table itself"):
        prepare(FRAME, terms(), FRAME)
    with pytest.raises(UsageError, match="lacks the column ward"):
        prepare(FRAME, terms(), pd.DataFrame({"age": [1]}))
    with pytest.raises(UsageError, match="another type"):
        prepare(FRAME, terms(), pd.DataFrame({"age": ["x"], "ward": ["y"]}))
    assert prepare(FRAME, terms(), pd.DataFrame({"ward": ["y"], "age": [1], "more": [2]})).mock.columns == ["age", "ward"]


def test_stored_files_are_for_this_user_only_and_go_when_removed(tmp_path):
    store = Store(tmp_path / "tables")
    kept = store.put("d", 1, prepare(FRAME, terms(), "generate"), persist=True)
    files = list((tmp_path / "tables").iterdir())
    assert len(files) == 2
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in files)
    assert store.table(kept["file"]).collect().height == 3
    assert store.digest(kept["file"]) == kept["digest"]
    assert Store(tmp_path / "tables").mock(kept["file"]).height == 100
    store.remove(kept["file"])
    assert not list((tmp_path / "tables").iterdir())
    with pytest.raises(StateError, match="missing"):
        store.table(kept["file"])


def test_a_table_in_memory_writes_nothing(tmp_path):
    store = Store(tmp_path / "tables")
    kept = store.put("d", 1, prepare(FRAME, terms(), "generate"), persist=False)
    assert not list((tmp_path / "tables").iterdir())
    assert store.table(kept["file"]).collect().height == 3


def test_what_a_crash_left_behind_is_cleared(tmp_path):
    store = Store(tmp_path / "tables")
    kept = store.put("d", 1, prepare(FRAME, terms(), "generate"), persist=True)
    store.put("d", 2, prepare(FRAME, terms(), "generate"), persist=True)
    (tmp_path / "tables" / ".d.partial").touch()
    store.remove_others({kept["file"]})
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {kept["file"], f"mock-{kept['file']}"}


# What one person could decide is the owner's to say


def _kinds(column, **more):
    made = prepare(pd.DataFrame({"id": range(len(column)), "x": column}), terms(k=1, **more), "generate")
    return {c.name: c.kind for c in made.schema.columns}


@pytest.mark.parametrize(
    ("column", "one", "word"),
    [
        ([1, 2] * 50, 0.5, "whole numbers but for 1"),
        ([str(i) for i in range(100)], "unknown", "numbers but for 1"),
        (["True", "False"] * 50, "maybe", "true and false but for 1"),
        (["2024-01-02"] * 100, "not yet", "dates but for 1"),
        (["2024-01-02"] * 100, "2024-02-31", "dates but for 1"),
        (["31.12.2020"] * 100, "31.02.2020", "dates but for 1"),
        (["31/12/2020"] * 100, "soon", "dates but for 1"),
        (["12/31/2020"] * 100, "soon", "dates but for 1"),
        (["yes", "no"] * 50, "maybe", "true and false but for 1"),
        (["Y", "N"] * 50, "yes", "true and false but for 1"),
        (["t", "f"] * 50, "-", "true and false but for 1"),
        ([f"{i},5" for i in range(100)], "n.b.", "numbers with a comma but for 1"),
        ([f"{i},234.5" for i in range(1, 101)], "-", "numbers with separators but for 1"),
        ([f"1 {i} 000" for i in range(100, 200)], "-", "numbers with separators but for 1"),
        (["1.234", "1,5"] * 50, "?", "numbers with separators but for 1"),
    ],
)
def test_a_kind_that_hangs_on_one_person_is_asked_for(column, one, word):
    with pytest.raises(UsageError, match=word):
        _kinds([*column, one])
    rows = pd.DataFrame({"id": [*range(100), *[999] * 40], "x": [*column, *[one] * 40]})  # however many rows it has
    with pytest.raises(UsageError, match=word):
        prepare(rows, terms(k=1), "generate")
    rows["id"] = rows["id"].where(rows["id"] != 999)
    made = prepare(rows, terms(k=1), "generate")  # rows of nobody decide nothing
    assert made.schema.columns == prepare(rows[:100], terms(k=1), "generate").schema.columns


@pytest.mark.parametrize(("bounds", "kind"), [((0.0, 12.0), "float"), ((0, 12), "int")])
def test_bounds_say_what_a_column_holds_whether_a_value_is_missing_or_not(bounds, kind):
    whole = list(range(12))
    assert _kinds(whole, bounds={"x": bounds}) == _kinds([*whole, None], bounds={"x": bounds}) == {"x": kind}


def test_flags_taken_for_text_are_written_one_way():
    flags = [True, False] * 20
    one, two = (
        prepare(pd.DataFrame({"x": c}), terms("row", 1, kinds={"x": "text"}), "generate")
        for c in (flags, [*map(str, flags), "maybe"])
    )
    assert one.table["v0"].to_list() == two.table["v0"].to_list()[:-1]


def test_whole_numbers_that_floats_no_longer_tell_apart_are_refused():
    large = pd.Series([2**60 + 1, 2**60 + 2, None], dtype="float64")
    with pytest.raises(UsageError, match=r"floats from 2\*\*53 on"):
        prepare(pd.DataFrame({"x": large}), terms("row", 1, kinds={"x": "int"}), "generate")
    with pytest.raises(UsageError, match=r"the ids in 'id' are floats"):
        prepare(pd.DataFrame({"id": large, "x": [1, 2, 3]}), terms(), "generate")


@pytest.mark.parametrize("ids", [[[1], [2]], [b"a", b"b"], [{"a": 1}, {"a": 2}]])
def test_ids_are_text_or_numbers(ids):
    with pytest.raises(UsageError, match="ids can't be"):
        prepare(pl.DataFrame({"id": ids, "x": [1, 2]}), terms(), "generate")


def test_a_table_without_rows_can_be_kept_and_looked_at(tmp_path):
    store = Store(tmp_path / "tables")
    empty = prepare(FRAME.assign(id=None), terms(k=1, kinds={"age": "int", "ward": "text"}), "generate")
    file = store.put("t", 1, empty, True)["file"]
    assert len(store.people(file)) == 0 and store.likeness(file) is not None


@pytest.mark.parametrize(
    "column",
    [["12,5", "3,0"], ["1,234", "12"], ["31.12.2020", "01.02.2021"], ["yes", "no"], ["t", "f"], ["er", "icu"], ["12", "er"]],
)
def test_a_column_that_is_text_whoever_is_in_it_is_not_asked_for(column):
    assert _kinds(column * 50) == {"x": "text"}


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([3.0] * 5 + [3.5], "whole numbers but for 1"),
        ([3.0] * 10 + [3.5] * 3, "whole numbers but for 3"),
        (["12"] * 9 + ["n/a"], "numbers but for 1"),
        *(([value] * 3, "few people only") for value in (3.0, 3.5, True, "x", 3)),
    ],
)
@pytest.mark.parametrize("unit", ["row", "id"])
def test_few_peoples_values_decide_no_kind_however_few_others_have_any(values, word, unit):
    column = pd.Series([*values, *[None] * 500], dtype=pd.Series(values).dtype if type(values[0]) is float else object)
    frame = pd.DataFrame({"id": [i * 37 for i in range(len(column))], "x": column})
    with pytest.raises(UsageError, match=word):
        prepare(frame, terms(unit, 1), "generate")
    declared = prepare(frame, terms(unit, 1, kinds={"x": "text" if type(values[0]) is str else "float"}), "generate")
    assert declared.rows == len(column)
    small = frame[len(values) - 1 :][:10]  # ten people: there each is one of few
    assert prepare(small, terms(unit, 1), "generate").rows == 10


def test_categories_and_bounds_say_what_a_column_of_few_values_holds():
    few = [3.0] + [None] * 50
    assert _kinds(few, bounds={"x": (0.0, 9.0)}) == {"x": "float"}
    assert _kinds(few, categories={"x": [3, 4]}) == {"x": "int"}
    with pytest.raises(UsageError, match="few people only"):
        _kinds(few, bounds={"x": (0, 9)})  # which whole numbers and others have


# A kind that nobody declared changes nothing


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_of_any_size_keep_their_fractions(dtype, tmp_path):
    weights = np.random.default_rng(0).random(40).astype(dtype)
    (pl.DataFrame({"w": pl.Series(weights)})).write_parquet(tmp_path / "w.parquet")
    for data in (pd.DataFrame({"w": weights}), pl.DataFrame({"w": pl.Series(weights)}), tmp_path / "w.parquet"):
        made = prepare(data, terms("row", 1), "generate")
        assert made.schema.columns[0].kind == "float" and not made.remarks
        assert made.table["v0"].to_list() == weights.astype(float).tolist()


@pytest.mark.parametrize("dtype", [pl.UInt64, pl.Int128])
def test_values_that_a_kind_nobody_declared_would_lose_are_asked_for(dtype):
    frame = pl.DataFrame({"x": pl.Series([2**63 + 1, *range(49)], dtype=dtype)})
    with pytest.raises(UsageError, match=r"would lose or change 1 \(2.0%\) of its values as int"):
        prepare(frame, terms("row", 1), "generate")
    told = prepare(frame, terms("row", 1, kinds={"x": "int"}), "generate")
    assert told.table["v0"].to_list()[:2] == [None, 0] and "changed or lost" in told.remarks[0][1]
    assert prepare(frame, terms("row", 1, kinds={"x": "text"}), "generate").table["v0"][0] == str(2**63 + 1)


@pytest.mark.parametrize("values", [[2**53 + 1, 5], [Decimal(2**53 + 1), Decimal("0.1")]])
def test_digits_that_a_float_does_not_hold_are_told(values):
    frame = pl.DataFrame({"x": values})
    assert (
        "1 (50.0%) of its values are no float"
        in prepare(frame, terms("row", 1, kinds={"x": "float"}), "generate").remarks[0][1]
    )
    frame = pl.DataFrame({"x": [0, 5] if type(values[0]) is int else [Decimal("0.3"), Decimal("0.1")]})
    assert not prepare(frame, terms("row", 1, kinds={"x": "float"}), "generate").remarks


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("float32", 24), ("float64", 53)])
def test_whole_numbers_are_not_told_apart_from_where_their_floats_end(dtype, bits):
    last, over = (np.array([2**bits - 1 + i, 1, 2], dtype=dtype) for i in (0, 1))
    for kind in ("int", "text"):
        assert prepare(pd.DataFrame({"x": last}), terms("row", 1, kinds={"x": kind}), "generate").rows == 3
        with pytest.raises(UsageError, match=rf"floats from 2\*\*{bits} on"):
            prepare(pd.DataFrame({"x": over}), terms("row", 1, kinds={"x": kind}), "generate")
    with pytest.raises(UsageError, match=rf"floats from 2\*\*{bits} on"):
        prepare(pd.DataFrame({"x": over}), terms("row", 1), "generate")
    assert prepare(pd.DataFrame({"id": last, "x": 1}), terms(k=1), "generate").rows == 3
    with pytest.raises(UsageError, match=rf"the ids in 'id' are floats from 2\*\*{bits} on"):
        prepare(pd.DataFrame({"id": over, "x": 1}), terms(k=1), "generate")


def test_nan_is_missing_and_not_outside_the_bounds():
    frame = pl.DataFrame({"x": [float("nan")] * 10 + [1.5, 2.5] * 20})
    assert not prepare(frame, terms("row", 1, bounds={"x": (0.0, 10.0)}), "generate").remarks


# A mock is compared with all that was given


def test_a_mock_of_rows_that_were_not_kept_is_refused():
    make = np.random.default_rng(1)
    frame = pd.DataFrame({"id": np.repeat(np.arange(30), 100), "age": make.normal(50, 12, 3000), "pay": make.normal(size=3000)})
    with pytest.raises(UsageError, match="5 of the mock's 5 rows are rows of the private table"):
        prepare(frame, terms(k=1), frame.head(5), KEY)
    nobody = frame.assign(id=frame["id"].where(frame.index >= 200))
    with pytest.raises(UsageError, match="200 of the mock's 200 rows"):
        prepare(nobody, terms(k=100), frame.head(200))


@pytest.mark.parametrize("mock", [None, "none", 5, [1, 2]])
def test_an_odd_mock_is_refused_by_name(mock):
    with pytest.raises(UsageError, match="the mock: "):
        prepare(FRAME, terms(), mock)


# Tensors


@pytest.mark.parametrize(("given", "made"), [("uint16", "<i4"), ("uint32", "<i8"), ("uint64", "<i8"), ("uint8", "|u1"), ("int16", "<i2")])  # fmt: skip
def test_unsigned_tensors_become_signed_ones_that_pointers_have(given, made):
    array = np.arange(40, dtype=given).reshape(20, 2) + np.iinfo(given).max // 2 - 40
    tensor = prepare(array, terms("row", 1, bounds=(0, 100)), "generate")
    assert tensor.tensor["dtype"] == made and str(np.dtype(made)) in DTYPES
    assert tensor.table["v0"].to_list() == array.reshape(-1).tolist()


@pytest.mark.parametrize(
    ("array", "given", "word"),
    [
        (np.full((20, 2), 2**63, dtype="uint64"), terms("row", 1), r"2\*\*63 on"),
        (np.ma.masked_greater(np.arange(20.0), 5), terms("row", 1), r"array.filled\(0\)"),
        (np.ones((20, 2)), terms("row", 1, bounds={"x": (0, 9)}), "bounds of a tensor are one pair"),
        (np.ones((20, 2)), terms("row", 1, kinds={"x": "int"}), "no kinds"),
        (np.ones((20, 2)), terms("row", 5), "max_contributions is 1"),
        (np.ones((20, 2), dtype="float16"), terms("row", 1), "floats of 32 or 64 bits"),
    ],
)
def test_tensors_with_odd_settings_are_refused(array, given, word):
    with pytest.raises(UsageError, match=word):
        prepare(array, given, "generate")
