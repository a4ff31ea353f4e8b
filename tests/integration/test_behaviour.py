"""What an owner can know of code before approving it: earlier versions, growth, influence of one person, hints."""

import numpy as np
import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.kernel.executor import levels
from syft_lab.kernel.requests.hints import hints

from .deciding import approved, cell, until

pytestmark = [
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]


def checked(owner, session, *args, **more):
    return until(owner, session.file(cell(*args, **more)).number, "checked")


def test_a_diff_against_the_last_approved_and_near_identical_versions(owner, session):
    lines = [f"a{i} = {i}" for i in range(12)]
    base = "\n".join([*lines, "m = patients.age.mean()"])
    session.file(cell(base))
    approved(owner, 1)
    session.file(cell(base.replace("a3 = 3", "a3 = 33")))
    owner.requests.number(2).deny("why 33?")
    request = checked(owner, session, base.replace("a7 = 7", "a7 = 77"))
    assert request.earlier["against"] == 1  # the last approved, not the last filed
    assert [(n["number"], n["state"]) for n in request.earlier["near"]] == [(2, "denied"), (1, "review")]
    assert [d for d in request.earlier["diff"] if d[0] in "+-"] == ["-a7 = 7", "+a7 = 77"]
    assert "-a7 = 7" in repr(request)
    other = checked(owner, session, "x = 1\ny = 2\nm = x + y")
    assert other.earlier["near"] == []


def test_whether_results_grow_with_the_data_shows(owner, session):
    said = {
        "m = patients.age.mean()": [],
        "m = patients.age.to_numpy()": ["m"],
        "m = patients.groupby('ward').age.mean()": [],
        "m = patients.note.drop_duplicates().str.len().to_numpy()": ["m"],
        "import numpy as np\nm = np.unique(patients.los_days.to_numpy())": ["m"],
    }
    for code, grows in said.items():
        request = checked(owner, session, code)
        assert request.mock["grows"] == grows, code
        assert ("may be row-level output" in repr(request)) == bool(grows)
    broken = checked(owner, session, "assert len(patients) == 100\nm = 1")
    assert broken.mock["grows"] is None
    assert "could not be told" in repr(broken)


def test_leaving_one_row_of_the_mock_out_shows_what_hangs_on_it(owner, session):
    first = checked(owner, session, "m = patients.age.iloc[0]\nn = 7", ("m", "n"))
    assert first.mock["dropped"]["outputs"]["n"]["changed"] == 0
    assert first.mock["dropped"]["outputs"]["m"]["changed"] >= 1
    assert "m changed" in repr(first)
    nothing = checked(owner, session, "m = 7")
    assert "which proves nothing" in repr(nothing)


def test_leaving_one_person_out_of_the_data_is_the_owners_alone(home):
    """One person has 1 000 times the stay of the others: leaving them out moves the mean, and only the owner learns it."""
    import pandas as pd

    days = np.r_[np.full(300, 5.0), 50_000.0]
    table = pd.DataFrame({"id": np.r_[np.arange(300), 999], "days": days})
    owner = lab.Owner.start("hospital-a")
    try:
        owner.publish(table, "stays", privacy_unit="id", bounds={"days": (0, 100_000)}, budget=lab.Budget(1))
        owner.invite("alice")
        with lab.connect("alice.syft") as session:
            asked = session.file(cell("m = stays.days.mean()\nc = 3.0", ("m", "c"), use=(("stays", 1),)))
            request = until(owner, 1, "checked")
            told = request.drop_people(4)
            assert "m changed" in told
            said = owner._desk.noted(owner._desk.row(request.id), "dropped")
            assert said["outputs"]["m"]["largest"] > 0.9
            assert said["outputs"]["c"]["changed"] == 0
            session.requests  # noqa: B018
            assert "changed" not in {k for k in asked.facts if k != "changed"}
            assert told not in repr(request)  # a saved notebook tells nothing of it
            assert request.state in ("filed", "seen")
            assert [e.body["what"] for e in owner._journal.entries() if e.kind == "tried"] == ["drop people"]
            broken = session.file(cell("m = 1 / 0 if len(stays) > 200 else 1", use=(("stays", 1),)))
            until(owner, broken.number, "checked")
            with pytest.raises(errors.UsageError, match="fails on the real data"):
                owner.requests.number(broken.number).drop_people()
            with pytest.raises(errors.UsageError, match="1 to 100"):
                request.drop_people(0)
    finally:
        owner.stop()


def test_peak_memory_and_time_of_the_mock_run_show(owner, session):
    request = checked(owner, session, "import numpy as np\nx = np.ones(40_000_000)\nm = x.sum()")
    assert request.mock["peak"] > 200 << 20
    assert "MiB" in repr(request)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("import os\nm = 1", "line 1: imports os"),
        ("from subprocess import run\nm = 1", "imports subprocess"),
        ("m = eval('1')", "calls eval"),
        ("m = ().__class__.__base__", "uses __class__"),
        ("import time\ntime.sleep(1)\nm = 1", "line 2: sleeps"),
        ("try:\n    m = 1\nexcept Exception:\n    m = 2", "catches errors"),
        ("if len(patients) > 200:\n    m = 1", "can tell the mock from the data"),
        ("m = patients", "is a dataset"),
        ("m = patients.age.max()", "a maximum is one person's value"),
        ("m = patients.head(3)", "takes the first rows"),
        ("m = patients.groupby('ward').size()", "groups can be small"),
        ("m = patients[patients.age == 4711].age.mean()", "compares with 4711"),
        ("m = 1  # \u0430", "beyond ASCII"),
        ("assert patients.age.min() > 3\nm = 1", "raises on a condition"),
    ],
)
def test_hints_name_the_line_and_what_catches_the_eye(code, word):
    assert any(word in hint for hint in hints(cell(code))), hints(cell(code))


def test_plain_code_has_no_hints():
    assert hints(cell("from sklearn.linear_model import LinearRegression\nm = patients.age.mean()")) == []
