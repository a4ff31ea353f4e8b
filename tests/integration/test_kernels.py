"""Two real kernels: the corridor as people use it, and the owner's kernel killed in the middle of it."""

import os
import signal
import time
from pathlib import Path

import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.identity import Keys
from syft_lab.kernel.journal import verify

from .kernels import CellError, Kernel

HOST = """
%load_ext syft_lab
%owner start hospital-a
"""
PUBLISH = """
import numpy as np, pandas as pd, syft_lab as lab
table = pd.DataFrame({"x": np.arange(1000) % 50, "g": np.arange(1000) % 3})
owner.publish(table, "table", privacy_unit="row", bounds={"x": (0, 50)}, categories={"g": [0, 1, 2]}, budget=lab.Budget(3))
owner.invite("alice", budgets={"table": 2.0})
owner.policy.allow("dp", dataset="table", epsilon_per_query=1)
"""


@pytest.fixture
def no_code(monkeypatch):
    """No code runs in these kernels, so they need not warm a fork server each."""
    monkeypatch.setenv("SYFT_LAB_ISOLATION", "L0")


def test_the_first_lines_of_the_readme_work_in_two_kernels(home, no_code):
    with Kernel(home) as owner, Kernel(home) as analyst:
        assert "Owner hospital-a: running" in owner.run(HOST)
        owner.run(PUBLISH)
        assert "datasets     table v1" in owner.run("%owner status")
        assert "Connected to hospital-a" in analyst.run("%load_ext syft_lab\n%connect alice.syft")
        assert "PointerFrame table v1" in analyst.run("table = hospital_a['table']\ntable")
        assert "95 %" in analyst.run("table.groupby('g')['x'].mean().release(epsilon=0.5)")
        assert "spent 0.5, reserved 0, left 1.5 of 2" in analyst.run("%budget")
        assert "entries" in owner.run("owner.audit.verify()")
        assert [c.strip("'\"]") for c in analyst.complete("table['")] == ["g", "x"]
        assert owner.complete("%owner st") == ["start", "status", "stop"]
        assert analyst.complete("x = 1\n%connect --") == ["--as", "--timeout"]
        assert analyst.complete("%connect ") == ["--as", "--timeout", "alice.syft", "hospital-a"]
        assert "owner" in owner.complete("own")
        assert "running" in owner.run("%reload_ext syft_lab\n%owner status")
        owner.run("%owner stop")
        assert "table v1" in owner.run("%owner start hospital-a")
        assert "spent 0.5" in analyst.run("%budget")
        owner.run("%owner stop")
        with pytest.raises(CellError) as caught:
            analyst.run("%budget")
        assert caught.value.name in ("ConnectionLost", "UnreachableError")
        assert "Traceback" not in str(caught.value)


PATIENTS = """
import numpy as np, pandas as pd
draw = np.random.default_rng(0)
patients = pd.DataFrame({"patient_id": draw.integers(0, 700, 1000), "age": draw.integers(0, 110, 1000),
                         "los_days": draw.random(1000) * 60, "ward": draw.choice(["er", "icu", "ward"], 1000)})
"""


def test_the_code_in_the_readme_runs_as_it_stands(home):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    theirs, ours, remote = (block.split("```")[0] for block in readme.split("```python\n")[1:])
    with Kernel(home) as owner, Kernel(home) as analyst:
        owner.run(PATIENTS)
        assert "Owner hospital-a: running" in owner.run(theirs)
        assert "ε spent 0.1" in analyst.run(ours)
        assert "er" in analyst.run("print(result.value)")
        assert "filed" in analyst.run(remote)
        owner.run("r = owner.requests[0].wait(); r.approve(digest=r.digest); r.wait().release()")
        assert "icu" in analyst.run("print(shares.get(30))")


def test_mistakes_in_magics_are_one_line(home):
    with Kernel(home) as kernel:
        kernel.run("%load_ext syft_lab")
        for line, name in [
            ("%owner stop", "UsageError"),
            ("%owner start", "UsageError"),
            ("%owner dance", "UsageError"),
            ("%connect nobody.syft", "InvitationError"),
            ("%budget", "UsageError"),
        ]:
            try:
                shown = kernel.run(line)
            except CellError as error:
                assert error.name == name
                shown = str(error)
            assert "Traceback" not in shown


@pytest.mark.parametrize("busy", ["import time; time.sleep(600)", "while True: pass"], ids=["sleep", "loop"])
def test_the_owner_answers_while_a_cell_of_theirs_runs(home, no_code, busy):
    with Kernel(home) as owner:
        owner.run(HOST)
        owner.run(PUBLISH)
        running = owner.start(busy)
        with lab.connect("alice.syft") as session:
            for epsilon in (0.1, 0.2, 0.3):
                assert session["table"].x.mean().release(epsilon=epsilon).value is not None
        owner.manager.interrupt_kernel()
        with pytest.raises(CellError, match="KeyboardInterrupt"):
            owner.finish(running)


def test_an_owner_that_stops_breathing_is_noticed(home, no_code):
    with Kernel(home) as owner:
        owner.run(HOST)
        owner.run(PUBLISH)
        with lab.connect("alice.syft") as session:
            session.ping()
            os.kill(owner.pid, signal.SIGSTOP)
            while Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                continue  # a signal takes a moment to reach every thread
            try:
                with pytest.raises(errors.ConnectError):
                    session.ping()
            finally:
                os.kill(owner.pid, signal.SIGCONT)


def test_a_child_that_the_owners_kernel_forks_leaves_the_owner_alone(home, no_code):
    with Kernel(home) as owner:
        owner.run(HOST)
        owner.run(PUBLISH)
        owner.run("import os\nif os.fork() == 0:\n    owner.stop(); os._exit(0)\nos.wait()")
        with lab.connect("alice.syft") as session:
            assert session["table"].count().release(epsilon=0.1).value is not None
        with pytest.raises(errors.StateError, match="runs already"):
            lab.Owner.start("hospital-a")


def test_an_interrupt_stops_the_analysts_wait_and_the_answer_is_free_later(home, no_code):
    with Kernel(home) as owner, Kernel(home) as analyst:
        owner.run(HOST)
        owner.run(PUBLISH)
        os.mkfifo(home / "begun")
        owner.run(BLOCK.replace("event.wait()", "event.wait(); return real(*args)"))
        analyst.run("%load_ext syft_lab\n%connect alice.syft\ntable = hospital_a['table']")
        asked = analyst.start("table.count().release(epsilon=0.5)")
        (home / "begun").read_bytes()
        analyst.manager.interrupt_kernel()
        with pytest.raises(CellError, match="KeyboardInterrupt"):
            analyst.finish(asked)
        owner.run("event.set()")
        assert "95 %" in analyst.run("table.count().release(epsilon=0.5)")
        assert "spent 0.5" in analyst.run("%budget")


# Runs in a cell of the owner's kernel: the release stops between the reservation and the journal's commit.
BLOCK = """
import threading
from syft_lab.kernel import release
event, real = threading.Event(), release.seal
def stopped(*args):
    open("begun", "w").write("now")
    event.wait()
release.seal = stopped
"""
ROUNDS = 4


@pytest.mark.slow
def test_killed_between_reserve_and_release_nothing_is_overspent_and_the_analyst_is_told(home, no_code):
    os.mkfifo(home / "begun")
    state = home / "state" / "owners" / "hospital-a"
    with Kernel(home) as owner:
        owner.run(HOST + PUBLISH)
    pending, session, question = None, None, None
    for killed in range(ROUNDS + 1):
        with Kernel(home) as owner:
            owner.run(HOST)
            if session is None:
                session = lab.connect("alice.syft")
                question = session["table"].x.sum()
            if pending is not None:
                with pytest.raises(errors.FailedError, match=r"interrupted .* counts as spent"):
                    pending.get(timeout=60)
            spent = session.budget()
            assert spent.spent == pytest.approx({"table": 0.05 * killed})
            assert spent.left == pytest.approx({"table": 2 - 0.05 * killed})
            if killed == ROUNDS:
                break
            owner.run(BLOCK)
            pending = question.release(epsilon=0.05, block=False)
            assert (home / "begun").read_bytes() == b"now"
            reserved = session.budget()
            assert "reserved 0.05" in repr(reserved)
            owner.kill()
    head = verify(state / "journal.sqlite", Keys.load(state / "keys.json").public)
    assert head.size >= 2 * ROUNDS
    session.close()


def test_killed_at_any_moment_what_was_acknowledged_is_there(home, no_code):
    with Kernel(home) as owner:
        owner.run(HOST + PUBLISH)
        session = lab.connect("alice.syft")
        answers = {}
        start = time.monotonic()
        for i in range(60):
            epsilon = round(0.001 * (i + 1), 3)
            result = session["table"].count().release(epsilon=epsilon, block=False)
            if time.monotonic() - start > 0.25:
                break
            answers[epsilon] = result.value
        owner.kill()
    assert answers
    with Kernel(home) as owner:
        owner.run(HOST)
        for epsilon, value in answers.items():
            assert session["table"].count().release(epsilon=epsilon).value == value
        assert session.budget().spent["table"] >= round(sum(answers), 6)
        assert "entries" in owner.run("owner.audit.verify()")
    session.close()
