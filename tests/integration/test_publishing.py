"""What is public was declared, what a setting does is told before anybody asks, and an answer says what it leaves out."""

import numpy as np
import pandas as pd
import pytest
import torch

import syft_lab as lab
from syft_lab import errors

draw = np.random.default_rng(0)
PEOPLE = pd.DataFrame({"pid": [f"p{i}" for i in range(500)], "age": draw.normal(50, 12, 500), "ward": draw.choice(["er", "icu", "mat"], 500)})  # fmt: skip


@pytest.fixture
def owner():
    (made,) = lab.virtual_owners("office")
    yield made
    made.close()


def published(owner, frame, name="t", **more):
    settings = {"privacy_unit": "row", "budget": lab.Budget(1000.0), "population": name, **more}
    return str(owner.publish(frame, name, **settings))


# What is public was declared


@pytest.mark.parametrize("missing", [0, 1, 50])
@pytest.mark.parametrize(("values", "kind"), [(np.arange(100), "int"), (np.arange(100) / 7, "float")])
def test_a_kind_does_not_tell_of_a_missing_value(owner, values, kind, missing):
    frame = pd.DataFrame({"n": [*values.tolist(), *[None] * missing]})
    published(owner, frame, bounds={"n": (0, 100)})
    assert owner["t"].schema.loc["n", "kind"] == kind


def test_where_a_kind_hangs_on_few_rows_the_owner_says_it(owner):
    slip = pd.DataFrame({"n": [*range(100), 7.5]})
    with pytest.raises(errors.UsageError, match=r"whole numbers but for 1 \(1.0%\): say which"):
        published(owner, slip)
    with pytest.raises(errors.UsageError, match="empty, so nothing says what it holds"):
        published(owner, pd.DataFrame({"n": [None, None], "m": [1, 2]}))
    assert "1 (1.0%) of its values are no int" in published(owner, slip, kinds={"n": "int"}, bounds={"n": (0, 100)})
    published(owner, slip, "floats", kinds={"n": "float"}, distinct=True)
    assert [owner[name].schema.loc["n", "kind"] for name in ("t", "floats")] == ["int", "float"]
    for wrong, words in (({"n": "number"}, "is none"), ({"n": "int", "m": "int"}, "no column")):
        with pytest.raises(errors.UsageError, match=words):
            published(owner, slip, "wrong", kinds=wrong)


def test_a_mock_with_rows_of_the_table_needs_the_owners_word(owner):
    with pytest.raises(errors.UsageError, match="20 of the mock's 20 rows are rows of the private table"):
        published(owner, PEOPLE, mock=PEOPLE.head(20))
    published(owner, PEOPLE, mock=PEOPLE.head(20), mock_rows_public=True)
    assert len(owner["t"].mock) == 20


@pytest.mark.parametrize(("first", "second"), [("pid", "row"), ("row", "pid"), ("row", "row"), ("pid", "pid")])
def test_the_same_people_have_one_budget(owner, first, second):
    published(owner, PEOPLE, "one", privacy_unit=first)
    for other in (PEOPLE, PEOPLE.assign(wave=1), PEOPLE.drop(columns="ward"), PEOPLE.iloc[::-1]):
        with pytest.raises(errors.UsageError, match="about the same people"):
            published(owner, other, "two", privacy_unit=second)
    published(owner, PEOPLE.assign(wave=1), "two", privacy_unit=second, population="one", budget=None)


@pytest.mark.parametrize(("first", "second"), [("pid", "row"), ("row", "pid"), ("pid", "pid")])
def test_people_counted_from_one_are_known_by_row_too_and_other_surveys_are_let_be(owner, first, second):
    ages, costs = (pd.DataFrame({"pid": np.arange(1, 1501), name: draw.integers(0, 900, 1500)}) for name in ("age", "cost"))
    published(owner, ages, "one", privacy_unit=first)
    with pytest.raises(errors.UsageError, match="about the same people"):
        published(owner, costs, "two", privacy_unit=second)
    for name in ("three", "four"):
        survey = {
            "age": draw.integers(0, 6, 2000),
            "sex": draw.choice(["f", "m"], 2000),
            "region": draw.choice([*"NSEW"], 2000),
        }
        published(owner, pd.DataFrame(survey), name)


def test_an_id_has_one_person_and_an_empty_one_none(owner):
    ids = ["7", "7 ", " 07", "\t7", "8", "", None] * 10
    told = published(
        owner, pd.DataFrame({"id": ids, "x": range(70)}), privacy_unit="id", bounds={"x": (0, 70)}, rows_public=True
    )
    assert owner["t"].shape[0] == 2
    assert "3 were written in other ways" in told and "68 rows without an id, or beyond the contributions" in told


def test_which_rows_stay_does_not_follow_the_tables_order(owner):
    frame = pd.DataFrame({"id": np.repeat(np.arange(200), 50), "month": np.tile(np.arange(50) % 10, 200)})
    kept = []
    for name, table in (("sorted", frame.sort_values("month")), ("turned", frame.iloc[::-1])):
        published(
            owner, table, name, privacy_unit="id", max_contributions=5, categories={"month": list(range(10))}, distinct=True
        )
        kept.append(owner[name].groupby("month").size().release(epsilon=90.0).value)
    assert kept[0].sum() == pytest.approx(1000, abs=30)
    assert kept[0].min() > 60 and kept[0].max() < 140  # by the table's order: 200 in each of five months
    assert abs(kept[0] - kept[1]).max() < 5  # the same rows of each person


def test_other_people_by_equal_ids_are_excused_and_equal_rows_are_not(owner):
    def people(seed, **more):
        make = np.random.default_rng(seed)
        return pd.DataFrame(
            {"pid": np.arange(1, 2001), "age": make.normal(50, 12, 2000), "weight": make.normal(80, 12, 2000), **more}
        )

    published(owner, people(1), "one", privacy_unit="pid")
    published(owner, people(2), "two", privacy_unit="pid", distinct=True)
    for theirs in (people(2), people(2)[["pid", "age"]], people(2, ward="er")):
        with pytest.raises(errors.UsageError, match="population='two'"):
            published(owner, theirs, "three", privacy_unit="pid", population="one", budget=None)
    published(owner, people(1, ward="er"), "three", privacy_unit="pid", population="one", budget=None)
    published(owner, people(3), "four", privacy_unit="pid", population="one", budget=None)  # by their ids alone


@pytest.mark.parametrize(
    ("setting", "value"),
    [("bounds", 5), ("categories", ["n"]), ("kinds", "int"), ("mock", None), ("tags", "onc"), ("tags", [1]), ("tags", None), ("description", None), ("persist", "yes")],
)  # fmt: skip
def test_a_setting_of_another_type_is_one_clear_error(owner, setting, value):
    with pytest.raises(errors.UsageError, match=rf"\b{setting}\b"):
        published(owner, pd.DataFrame({"n": range(100)}), **{setting: value})


# What a setting does is told


def test_the_owner_reads_what_bounds_and_categories_leave_out_and_analysts_do_not(owner):
    told = published(owner, PEOPLE.drop(columns="pid"), bounds={"age": (45, 60)}, categories={"ward": ["er", "icu"]})
    beyond = ((PEOPLE.age < 45) | (PEOPLE.age > 60)).sum()
    assert f"{beyond} ({beyond / 500:.1%}) values lie outside 45 to 60" in told
    assert f"{(PEOPLE.ward == 'mat').sum()} " in told and "no declared category" in told
    answer = owner["t"].groupby("ward").age.mean().release(epsilon=5.0)
    assert "age 45 to 60" in str(answer) and "in no group" in str(answer) and str(beyond) not in str(answer)
    assert len(answer.notes) == 2 and "clipped" in answer._repr_html_()


def test_what_looks_like_an_identifier_is_told(owner):
    assert "differs in every row, as an identifier does" in published(owner, PEOPLE)


def test_bounds_of_a_tensor_that_nobody_gave_are_told(owner):
    told = str(owner.publish(torch.rand(50, 2) * 4 + 5, "x"))
    assert "none were given, so 0 to 1 are taken" in told and "100 (100.0%) entries lie outside" in told


def test_unsigned_numbers_are_published_and_opened(owner):
    owner.publish(np.arange(40, dtype="uint16").reshape(20, 2), "u", bounds=(0, 100))
    assert owner["u"].dtype is torch.int32


# Answers


def test_counts_keep_their_sign_and_are_shown_as_nothing_below_it(owner):
    frame = pd.DataFrame({"code": np.arange(50) % 5})
    published(owner, frame, categories={"code": list(range(400))})
    answer = owner["t"].groupby("code").size().release(epsilon=0.5)
    low, high = answer.interval
    assert (answer.value < 0).any() and abs(answer.value.sum() - 50) < 6 * (400 * 2) ** 0.5 / 0.5
    assert low.min() >= 0 and (low <= answer.value.clip(lower=0)).all() and (answer.value.clip(lower=0) <= high + 1e-9).all()
    assert "-" not in str(answer).split("low to high")[0].replace("- ", "")
    assert owner["t"].count().release(epsilon=1.0).value == pytest.approx(50, abs=30)


@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_the_interval_of_a_mean_lies_within_the_bounds_of_its_column(owner, epsilon):
    published(owner, PEOPLE, bounds={"age": (0, 110)}, categories={"ward": ["er", "icu", "nowhere"]})
    answer = owner["t"].groupby("ward").age.mean().release(epsilon=epsilon)
    low, high = answer.interval
    assert (low >= 0).all() and (high <= 110).all() and (low <= high).all()
    one = owner["t"].age.mean().release(epsilon=epsilon)
    assert one.interval[0] <= one.value <= one.interval[1]
    assert owner["t"].age.mean().price(epsilon=epsilon).accuracy.index.tolist() == [100, 1000, 10_000, 100_000]


# Words


def test_the_same_words_name_a_question_everywhere(owner, capsys):
    published(owner, PEOPLE, bounds={"age": (0, 110)})
    t = owner["t"]
    question = t[t.ward == "er"].age.isna().sum()
    words = "sum of age.isna() where ward == 'er' in t"
    assert (
        str(question) == words
        and words in repr(question.price(epsilon=1.0))
        and words in question.price(epsilon=1.0)._repr_html_().replace("&#x27;", "'")
    )
    answer = question.release(epsilon=1.0)
    assert answer.receipt.details["question"] == words
    assert words in answer._repr_html_().replace("&#x27;", "'")
    assert any(words in str(line) for line in owner.host.console.lines) if hasattr(owner.host.console, "lines") else True


def test_a_filter_of_thousands_of_conditions_is_one_clear_error(owner):
    published(owner, PEOPLE, bounds={"age": (0, 110)})
    t = owner["t"]

    def joined():
        mask = t.age == 0
        for i in range(3000):
            mask = mask | (t.age == i)

    with pytest.raises(errors.QueryError, match=r"column.isin\(\[…\]\)"):
        joined()


@pytest.mark.parametrize(
    ("word", "way"),
    [("median", "remote cell"), ("value_counts", "groupby"), ("hist", "between"), ("nunique", "groupby"), ("max", "one person's"), ("describe", ".schema"), ("maen", "did you mean 'mean'")],
)  # fmt: skip
def test_words_of_pandas_lead_to_the_way_there_is(owner, word, way):
    published(owner, PEOPLE, bounds={"age": (0, 110)})
    with pytest.raises(errors.UnsupportedError) as caught:
        getattr(owner["t"].age, word)()
    assert way in str(caught.value)


# The state folder


def test_a_table_that_was_changed_on_disk_is_not_answered_from(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFT_LAB_HOME", str(tmp_path))
    made = lab.Owner.start("hospital")
    try:
        made.publish(
            pd.DataFrame({"age": np.arange(3000) % 90}),
            "t",
            privacy_unit="row",
            bounds={"age": (0, 100)},
            budget=lab.Budget(9.0),
        )
        made.policy.allow("dp", dataset="t", epsilon_per_query=5)
        made.invite("bob", budgets={"t": 9.0}, path=tmp_path / "bob.syft")
        session = lab.connect(tmp_path / "bob.syft")
        assert session["t"].age.mean().release(epsilon=1.0).value == pytest.approx(44.5, abs=5)
        (path,) = tmp_path.rglob("t-v1*.arrow")
        if path.name.startswith("mock"):
            raise AssertionError(path)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 64
        path.write_bytes(data)
        with pytest.raises(errors.LabError, match="changed after publishing"):
            session["t"].age.mean().release(epsilon=1.1)
        assert session.budget().spent["t"] == pytest.approx(1.0)
        session.close()
    finally:
        made.stop()


# A stored value is that of its own row


@pytest.mark.parametrize(
    ("column", "odd", "kinds", "asked"),
    [
        ([3.0] * 50, [3.5], {"c": "text"}, "3"),
        (pd.Series(["1"] * 50, dtype="category"), pd.Series(["9"], dtype="category"), {"c": "int"}, 1),
        (["1"] * 50, ["x"], {"c": "int"}, 1),
    ],
)
def test_how_a_value_is_stored_does_not_depend_on_other_rows(owner, column, odd, kinds, asked):
    counts = []
    for name, parts in (("without", [column]), ("with", [pd.Series(odd), pd.Series(column)])):
        frame = pd.DataFrame({"c": pd.concat([pd.Series(p) for p in parts], ignore_index=True)})
        if all(isinstance(getattr(p, "dtype", None), pd.CategoricalDtype) for p in parts):
            frame["c"] = frame["c"].astype("category")
        published(owner, frame, name, kinds=kinds, distinct=True)
        t = owner[name]
        counts.append(t[t.c == asked].count().release(epsilon=90.0).value)
    assert counts == [50, 50]


def test_how_an_id_is_written_does_not_depend_on_other_people():
    import polars as pl

    from syft_lab.kernel.resemblance import normal

    large = [1e16, 1e16 + 2, 2.0**63, 7.0]
    assert normal(pl.Series([*large, 0.5])).to_list()[:4] == normal(pl.Series(large)).to_list()


@pytest.mark.parametrize("kinds", [{"c": "bool"}, {"c": "int"}])
def test_a_kind_that_there_is_no_way_to_is_one_clear_error(owner, kinds):
    frame = pd.DataFrame({"c": ["a", "b"] if kinds["c"] == "bool" else [[1], [2]]})
    with pytest.raises(errors.UsageError, match="can't be taken for|mixes types"):
        published(owner, frame, kinds=kinds)
