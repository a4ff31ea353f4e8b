"""The report and the log name each question whole, also those of older journals and of hostile owners."""

import pytest

from syft_lab.expr import Col, Lit, Op, Query
from syft_lab.report import COLUMNS, line, report

TERMS = {"request": "r", "analyst": "ann", "dataset": "p", "version": 1, "population": "p", "epsilon_micro": 10**6}
PLAN = {"shape": [2], "digest": "ab" * 16, "text": "%0 = dataset p v1['age', 'los']\n%1 = aten.sum.dim_IntList(%0, [0])"}
AGE = Op("gt", (Col("age"), Lit(65)))


def entry(**asked):
    return {"time": "2026-01-01T00:00:00", "kind": "reserved", "body": {**TERMS, **asked}}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"query": Query("mean", Col("age")).to_json()}, "mean of age in p"),
        ({"query": Query("mean", AGE).to_json()}, "mean of age > 65 in p"),
        ({"query": Query("mean", Col("los"), AGE).to_json(), "question": "other words"}, "mean of los where age > 65 in p"),
        ({"plan": PLAN}, "a tensor [2] of p: %0 = dataset p v1['age', 'los']; %1 = aten.sum.dim_IntList(%0, [0])"),
        ({"plan": {"shape": []}}, "a tensor [] of p"),
        ({"query": {"aggregate": "mean"}}, "a question that can't be read"),
        ({"query": Query("mean", Col("<b>|x\n\u202e")).to_json()}, "mean of `<b>|x\\u000a\\u202e` in p"),
    ],
)
def test_the_report_and_the_log_name_the_whole_question(asked, words):
    written = "".join(f"\\{sign}" if sign in "\\`*_{}[]<>#|~&" else sign for sign in words)
    row = next(r for r in report("o", [entry(**asked)]).split("\n") if "| ann |" in r)
    assert f"| ann | {written} | p v1 |" in row
    logged = line(7, **entry(**asked))
    assert tuple(logged) == COLUMNS
    assert logged["question"] == words


def test_an_entry_about_no_question_has_none_in_the_log():
    logged = line(0, "2026-01-01T00:00:00", "failed", {"request": "r"})
    assert logged["question"] is None and logged["epsilon"] is None


def test_a_long_plan_is_cut_and_still_told_apart():
    long = {
        **PLAN,
        "text": "%0 = dataset p v1['age']\n" + "\n".join(f"%{i} = aten.neg.default(%{i - 1})" for i in range(1, 400)),
    }
    one, other = (line(0, **entry(plan={**long, "digest": digest}))["question"] for digest in ("ab" * 16, "cd" * 16))
    assert len(one) < 400 and "dataset p v1['age']" in one and "%399 = aten.neg.default(%398)" in one
    assert one != other
