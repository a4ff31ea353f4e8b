"""The only exit: nothing leaves in another form than was asked for."""

import math

import pytest

from syft_lab.budget import queries
from syft_lab.budget.accountant import cost
from syft_lab.budget.queries import Answer
from syft_lab.errors import FailedError
from syft_lab.expr import Col, Query
from syft_lab.kernel import release
from syft_lab.schema import Column, Schema

SCHEMA = Schema((Column("x", "int", (0, 9)), Column("g", "text", None, ("a", "b"))), 2, 1000)
PREPARED = queries.prepare(SCHEMA, Query("sum", Col("x"), None, ("g",)), cost(0.1))
KEYS, WITHIN = (("a",), ("b",)), ((2.0, 2.0), (-1.0, 0.0), (3.0, 9.0))
GOOD = Answer(KEYS, (1, None), *WITHIN)


def test_a_whole_answer_leaves():
    assert release.seal(PREPARED, GOOD) == {
        "aggregate": "sum", "by": ["g"], "keys": [["a"], ["b"]], "values": [1, None], "accuracy": [2.0, 2.0],
        "low": [-1.0, 0.0], "high": [3.0, 9.0],
    }  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        Answer(KEYS, (1,), *WITHIN),
        Answer(KEYS[:1], (1,), (2.0,), (0.0,), (1.0,)),
        Answer((*KEYS, ("zz",)), (1, 2, 3), (2.0,) * 3, (0.0,) * 3, (1.0,) * 3),
        Answer(KEYS, (1, math.nan), *WITHIN),
        Answer(KEYS, (1, math.inf), *WITHIN),
        Answer(KEYS, (1, "patient 17"), *WITHIN),
        Answer(KEYS, (1, True), *WITHIN),
        Answer(KEYS, (1, [1, 2]), *WITHIN),
        Answer(KEYS, (1, 2), (2.0, 2.0), (0.0, math.nan), (3.0, 9.0)),
        Answer(KEYS, (1, 2), (2.0, 2.0), (0.0, 0.0), (3.0, "patient 17")),
    ],
)
def test_anything_else_does_not_and_is_not_shown(answer):
    with pytest.raises(FailedError) as caught:
        release.seal(PREPARED, answer)
    assert "17" not in str(caught.value)


def test_the_guarantee_names_relation_unit_mechanism_and_isolation():
    said = release.guarantee(PREPARED, "patient_id")
    assert said["guarantee"] == "0.1-differential privacy"
    assert said["neighbours"] == "add or remove one patient_id with all its rows (at most 2)"
    assert set(said) >= {"measure", "mechanism", "scales", "isolation", "software"}
    assert release.guarantee(PREPARED, "row")["neighbours"] == "add or remove one row"
