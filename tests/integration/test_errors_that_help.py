"""A run that fails: the analyst gets a re-run on mocks, the owner everything, and type and line leave by a click only."""

import subprocess
import sys
import time

import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.kernel.executor import levels

from .deciding import approved, cell, until

pytestmark = [
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]

# The mock has no nulls, the data do: a habit that breaks only there.
NULLS = "days = patients.los_days.astype('int64')\nm = days.sum()"
SECRET = "v = patients.age.max()\nif len(patients) > 200:\n    raise ValueError(f'the oldest is {v}')\nm = 1"


def test_the_analyst_gets_a_traceback_of_a_rerun_on_harder_mocks(owner, session):
    asked = session.file(cell(NULLS))
    approved(owner, 1)
    with pytest.raises(errors.FailedError, match="raised an error on the real data") as caught:
        asked.results["m"].get(30)
    assert "on the mock with nulls" in caught.value.details
    assert "line 1" in caught.value.details
    assert "los_days.astype" in caught.value.details
    assert "syft_lab" not in caught.value.details.split("Traceback")[1].split("pandas")[0]
    shown = caught.value._render_traceback_()
    assert shown[0].startswith("FailedError: request 1 failed")
    assert any("Traceback" in line for line in shown)
    assert asked.rerun().traceback


def test_where_no_mock_breaks_it_that_is_said(owner, session):
    asked = session.file(cell(SECRET))
    approved(owner, 1)
    with pytest.raises(errors.FailedError) as caught:
        asked.results["m"].get(30)
    assert "something in the real data differs that no mock shows" in caught.value.details
    assert "oldest" not in str(caught.value) + caught.value.details


def test_the_rerun_tells_nothing_of_the_data(home, patients, terms):
    """Two owners, same schema, different rows; the code fails at both: the analyst reads the same words."""
    heard = []
    for name, table in (("one", patients), ("two", patients.sample(frac=0.7, random_state=1).assign(age=77))):
        owner = lab.Owner.start(name)
        try:
            owner.publish(table, name="patients", budget=lab.Budget(3.0), **terms)
            owner.invite("alice", path=f"{name}.syft")
            with lab.connect(f"{name}.syft", alias=name) as session:
                asked = session.file(cell(NULLS))
                approved(owner, 1)
                with pytest.raises(errors.FailedError) as caught:
                    asked.results["m"].get(30)
                heard.append((str(caught.value), caught.value.details))
        finally:
            owner.stop()
    assert heard[0] == heard[1]


def test_other_failures_are_not_run_again(owner, session):
    owner.limits = lab.Limits(wall=0.5)
    asked = session.file(cell("import time\nif len(patients) > 200: time.sleep(60)\nm = 1"))
    approved(owner, 1)
    with pytest.raises(errors.FailedError, match="longer than") as caught:
        asked.results["m"].get(30)
    assert caught.value.details == ""


def test_type_and_line_leave_by_a_click_with_a_receipt(owner, session):
    asked = session.file(cell(SECRET))
    request = approved(owner, 1)
    assert request.run["error"] == {"type": "ValueError", "line": 3, "result": False}
    assert "the oldest is" in request.log
    session.requests  # noqa: B018
    assert asked.error == ""
    with pytest.raises(errors.FailedError, match="released no error"):
        _ = asked.error_receipt
    before = owner._ledger.exact("clinic", "alice")
    request.release_error()
    session.requests  # noqa: B018
    assert asked.error == "ValueError in line 3"
    said = asked.error_receipt.verify(kind="explained")
    assert (said["error"], said["returns"]) == ({"type": "ValueError", "line": 3}, [])
    assert "oldest" not in str(said["error"])
    assert owner._ledger.exact("clinic", "alice") == before + 1
    with pytest.raises(errors.UsageError, match="released already"):
        request.release_error()
    path = asked.error_receipt.save("receipt.json")
    done = subprocess.run([sys.executable, "-m", "syft_lab", "verify", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "kind of error" in done.stdout
    assert owner.audit.verify()


def test_there_is_no_error_to_release_of_what_ran_or_was_stopped(owner, session):
    session.file(cell())
    with pytest.raises(errors.UsageError, match="no error to release"):
        owner.requests[0].release_error()
    approved(owner, 1)
    with pytest.raises(errors.UsageError, match="no error to release"):
        owner.requests[0].release_error()


def test_padded_answers_leave_at_multiples_of_a_time_and_a_size(home, patients, terms):
    owner = lab.Owner.start("padded")
    try:
        owner.publish(patients, name="patients", budget=lab.Budget(30.0), answer_seconds=0.25, answer_bytes=4096, **terms)
        owner.policy.allow("dp", dataset="patients", epsilon_per_query=0.5)
        owner.invite("alice", budgets={"clinic": 20.0})
        with lab.connect("alice.syft") as session:
            taken, sizes = [], []
            ask = session.asking

            async def asking(message, expected, timeout):
                begun = time.perf_counter()
                try:
                    reply = await ask(message, expected, timeout)
                    if message.kind == "release":
                        sizes.append(len(bytes(reply.payload[0])))
                    return reply
                finally:
                    if message.kind == "release":
                        taken.append(time.perf_counter() - begun)

            session.asking = asking
            rows = session["patients"]
            for i in range(3):
                rows[rows.age > 30 + i].count().release(epsilon=0.1)
            rows.groupby("ward").size().release(epsilon=0.1)
            with pytest.raises(errors.RefusedError):  # a refusal takes as long
                rows.count().release(epsilon=0.6)
            assert {s % 4096 for s in sizes} == {0}
            assert len(set(sizes)) <= 2
            assert all(t % 0.25 < 0.12 and t >= 0.25 for t in taken), taken
    finally:
        owner.stop()


@pytest.mark.parametrize(
    "padding", [{"answer_seconds": -1}, {"answer_seconds": 61}, {"answer_bytes": -1}, {"answer_bytes": 1.5}, {"approvals": 0}]
)
def test_padding_is_checked(home, patients, terms, padding):
    owner = lab.Owner.start("padded")
    try:
        with pytest.raises(errors.UsageError):
            owner.publish(patients, name="patients", budget=lab.Budget(1), **padding, **terms)
    finally:
        owner.stop()


def test_the_owner_sees_the_log_and_a_failed_request_shows_the_way(owner, session):
    session.file(cell(SECRET))
    request = approved(owner, 1)
    assert "request.release_error()" in repr(request)
    assert "the oldest is 94" in request.log
    assert "94" not in repr(request).replace(request.digest, "")
    until(owner, 1, "failed")
