"""Load and faults: many analysts at once, what is killed or full at each step. Nothing lost, run twice, or released unapproved."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import syft_lab as lab
from syft_lab import canonical, errors
from syft_lab.kernel.executor import levels
from syft_lab.wire import messages as m

from .deciding import approved, cell, person, until
from .kernels import Kernel

pytestmark = pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}")

HOST = """
%load_ext syft_lab
%owner start hospital-a
import numpy as np, pandas as pd, syft_lab as lab, time
table = pd.DataFrame({"age": np.arange(1000) % 90})
owner.publish(table, "patients", privacy_unit="row", bounds={"age": (0, 110)}, budget=lab.Budget(3))
for i in range(20): owner.invite(f"analyst-{i}")
owner.invite("sam", role="steward")
"""
ANALYSTS, EACH = 20, 5


def story(entries):
    """The kinds of entries of each request, in order."""
    told = {}
    for e in entries:
        if "request" in e.body:
            told.setdefault(e.body["request"], []).append(e.kind)
    return told


@pytest.mark.slow
def test_a_hundred_requests_of_twenty_analysts_while_the_owners_notebook_runs_a_cell(home):
    with Kernel(home) as kernel, contextlib.ExitStack() as stack:
        kernel.run(HOST)
        sessions = [stack.enter_context(lab.connect(f"analyst-{i}.syft", alias=f"a{i}")) for i in range(ANALYSTS)]
        steward = stack.enter_context(lab.connect("sam.syft", alias="sams"))
        busy = kernel.start(
            "end = time.time() + 600\nwhile time.time() < end and not (FLAG := __import__('os').path.exists('done')): sum(range(10000))"
        )
        asked, faults = [], []

        def file(i):
            try:
                for k in range(EACH):
                    asked.append((i, k, sessions[i].file(cell(f"m = patients.age.sum() + {i * EACH + k}"))))
            except BaseException as fault:
                faults.append(fault)

        threads = [threading.Thread(target=file, args=(i,)) for i in range(ANALYSTS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(120)
        assert not faults
        assert sorted(r.number for _, _, r in asked) == list(range(1, ANALYSTS * EACH + 1))
        total = sum(i % 90 for i in range(1000))
        for _, _, request in asked:  # a steward approves all of them, still while the cell runs
            action = {"do": "approve", "request": str(request.number), "digest": request.digest}
            steward._ask(m.Manage(canonical.dumps(action)), m.Managed, 60)
        end = time.monotonic() + 200
        while time.monotonic() < end:
            states = Counter(r.state for s in sessions for r in s.requests)
            if states == {"review": ANALYSTS * EACH}:
                break
        assert states == {"review": ANALYSTS * EACH}, states
        Path(home / "done").touch()
        kernel.finish(busy, 60)
        kernel.run("for r in list(owner.requests): r.release()", 120)
        for i, k, request in asked:
            assert request.results["m"].get(60) == total + i * EACH + k
        kernel.run("owner.stop()")
    owner = lab.Owner.start("hospital-a")
    try:
        told = story(owner._journal.entries())
        assert len(told) == ANALYSTS * EACH
        assert all(
            [k for k in kinds if k != "seen"] == ["filed", "approved", "started", "ran", "exact"] for kinds in told.values()
        )
        assert owner.audit.verify()
    finally:
        owner.stop()


STATES = ["expired", "seen", "partly", "denied", "withheld", "failed"]
LATER = "import datetime as d; j = owner._journal; j.clock = lambda: d.datetime.now(d.UTC) + d.timedelta(days=40)"


def test_a_kernel_killed_in_any_state_wakes_up_in_it(home):
    with Kernel(home) as kernel:
        kernel.run(HOST)
        with lab.connect("analyst-0.syft") as session, lab.connect("sam.syft", alias="sams") as steward:
            asked = {}
            for number, state in enumerate(STATES, 1):
                code = (
                    f"m = 1 / 0 if len(patients) > 500 else {number}"
                    if state == "failed"
                    else f"m = patients.age.sum() + {number}"
                )
                kernel.run(f"owner.approvals = {2 if state == 'partly' else 1}")
                asked[state] = session.file(cell(code))
                kernel.run(f"r = owner.requests.number({number}).seen()")
                if state == "partly":
                    kernel.run("r.approve(digest=r.digest)")
                elif state == "denied":
                    kernel.run("r.deny('no')")
                elif state == "expired":
                    kernel.run(f"{LATER}; owner._desk.expire()")
                elif state in ("withheld", "failed"):
                    kernel.run("r.approve(digest=r.digest); r.wait(); r.state == 'review' and r.withhold('no')")
                assert state in kernel.run("print(r.state)")
            kernel.kill()
            owner = lab.Owner.start("hospital-a")
            try:
                for number, state in enumerate(STATES, 1):
                    request = owner.requests.number(number)
                    assert request.state == state
                    if state == "seen":
                        assert approved(owner, number).state == "review"
                    elif state == "partly":
                        waiting = next(r for r in steward.inbox if r.number == number)
                        waiting.approve(digest=asked[state].digest)
                        assert until(owner, number, "review").approvers == ["owner", "sam"]
                    else:
                        with pytest.raises(errors.LabError):
                            asked[state].results["m"].get(30)
                        with pytest.raises(errors.UsageError):
                            request.approve(digest=request.digest)
                    kinds = story(owner._journal.entries())[asked[state].id]
                    assert kinds.count("started") == (state not in ("denied", "expired"))
                    assert "exact" not in kinds
                assert owner.audit.verify()
            finally:
                owner.stop()


def children(pid):
    """Processes below one, by the system's own account."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    return found


def job_of(owner, seconds=20):
    """The process of the one job that runs: below the fork server, which below bubblewrap is not the first of its kind."""
    server, end = owner._executor.pid, time.monotonic() + seconds
    while True:
        assert time.monotonic() < end, "no job was forked"
        for pid in children(server):
            with contextlib.suppress(OSError):
                if "zygote" in Path(f"/proc/{pid}/cmdline").read_text() and children(pid) == []:
                    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                    if parent == server or "bwrap" not in Path(f"/proc/{parent}/comm").read_text():
                        return pid


def test_a_killed_job_fails_alone_and_a_killed_fork_server_is_back_before_it_is_needed(owner, session):
    code = "import time\nif len(patients) > 200: time.sleep(60)\nm = 1"
    session.file(cell(code))
    request = owner.requests[0]
    until(owner, 1, "checked")
    request.approve(digest=request.digest)
    until(owner, 1, "running")
    os.kill(job_of(owner), signal.SIGKILL)
    assert until(owner, 1, "failed").why
    again = session.file(cell(code))
    until(owner, again.number, "checked")
    owner.requests.number(again.number).approve(digest=again.digest)
    until(owner, again.number, "running")
    server, end = owner._executor.pid, time.monotonic() + 60
    job_of(owner)  # one that is handed over after the kill would run in the next fork server
    for pid in [*children(server), server]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert "lost" in until(owner, again.number, "failed").why
    while owner._executor.pid in (None, server):  # nobody asked for it
        assert time.monotonic() < end
        owner._executor._boot.acquire()  # whoever boots it holds this
        owner._executor._boot.release()
    assert approved(owner, session.file(cell()).number).state == "review"
    assert all(kinds.count("started") <= 1 for kinds in story(owner._journal.entries()).values())


def test_one_analyst_does_not_starve_another(warm, owner, session):
    slow = "import time\nif len(patients) > 200: time.sleep(30)\nm = 1"
    for i in range(6):
        session.file(cell(f"{slow} + {i}"))
    owner.invite("bob")
    with lab.connect("bob.syft", alias="bobs") as bob:
        asked = bob.file(cell())
        for n in range(1, 8):
            until(owner, n, "checked")
        owner.requests.approve({n: owner.requests.number(n).digest for n in range(1, 8)})
        until(owner, asked.number, "review", seconds=20)
        assert [owner.requests.number(n).state for n in range(1, 7)].count("running") == owner._runs._queue.most
    for n in range(1, 7):
        owner.requests.number(n).cancel()


def test_ten_analysts_with_three_jobs_each_take_turns(warm, owner, session):
    slow = "import time\nif len(patients) > 200: time.sleep(60)\nm = 1"
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(person(owner, f"a{i}", "analyst")) for i in range(10)]
        blockers = [session.file(cell(f"{slow} + {i}")) for i in range(owner._runs._queue.slots - 1)]
        blockers.append(sessions[0].file(cell(f"{slow} + 9")))
        for blocker in blockers:  # all slots are taken while the others are approved
            until(owner, blocker.number, "checked")
            owner.requests.number(blocker.number).approve(digest=blocker.digest)
            until(owner, blocker.number, "running")
        asked = [s.file(cell(f"m = {k}")) for s in sessions for k in range(3)]
        for request in asked:
            until(owner, request.number, "checked", seconds=120)
        owner.requests.approve({r.number: r.digest for r in asked})
        for blocker in blockers:
            owner.requests.number(blocker.number).cancel()
        for request in asked:
            until(owner, request.number, "review", seconds=120)
    rows = {r.request: r.analyst for r in owner._desk.rows()}
    order = [rows[e.body["request"]] for e in owner._journal.of_kinds("started")][len(blockers) :]
    assert set(order[:10]) >= {f"a{i}" for i in range(1, 10)}, order  # before anybody has a second turn


def test_limits_of_a_role_hold_and_show_in_the_request(warm, owner, session):
    owner.define_role("trainee", ["mock", "file"])
    owner.set_limits("trainee", lab.Limits(wall=0.7, memory=1 << 30))
    code = "import time\nif len(patients) > 200: time.sleep(30)\nm = 1"
    with person(owner, "tim", "trainee") as tim:
        asked = tim.file(cell(code))
        assert asked.facts["limits"]["wall"] == 0.7
        request = until(owner, 1, "checked")
        assert "0.7 s, 1024 MiB" in repr(request)
        assert "longer than 0.7 s" in approved(owner, 1).why
    mine = session.file(cell())
    assert mine.facts["limits"]["wall"] == lab.Limits().wall
    with pytest.raises(errors.UsageError, match="no role"):
        owner.set_limits("nobody", lab.Limits())
    owner.stop()
    again = lab.Owner.start("hospital-a")
    try:
        assert again._settings.limits("trainee").wall == 0.7
    finally:
        again.stop()


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A state folder on a file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("making a small file system needs the right to mount")
    monkeypatch.setenv("SYFT_LAB_HOME", str(place))
    monkeypatch.chdir(tmp_path)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_nothing_and_releases_nothing(small_disk, patients, terms):
    """A real one: filing, approving, keeping a result and releasing on it, each refused in words, each fine after room is made."""
    owner = lab.Owner.start("hospital-a")
    try:
        owner.publish(patients, name="patients", budget=lab.Budget(3.0), **terms)
        owner.invite("alice", budgets={"clinic": 1.0})
        owner.policy.allow("dp", dataset="patients", epsilon_per_query=0.5)
        with lab.connect("alice.syft") as session:
            first = session.file(cell())
            until(owner, 1, "checked")
            session.file(cell("import numpy as np\nm = np.ones(300_000)"))
            until(owner, 2, "checked")
            full = small_disk / "ballast"

            def fill(keep=0):
                ballast = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                with contextlib.suppress(OSError):
                    while True:
                        os.write(ballast, b"\0" * 4096)
                os.close(ballast)
                if keep:
                    os.truncate(full, full.stat().st_size - keep)

            fill()
            with pytest.raises(errors.StateError, match="disk full"):
                owner.requests.number(1).approve(digest=first.digest)
            with pytest.raises(errors.LabError):
                session.file(cell("m = 3"))
            with pytest.raises(errors.LabError):
                session["patients"].count().release(epsilon=0.1)
            assert owner.requests.number(1).state in ("filed", "seen")
            full.unlink()
            approved(owner, 1)
            fill(keep=1 << 20)  # room for the journal, and none for 2.4 MB of a result
            second = owner.requests.number(2)
            second.approve(digest=second.digest)
            assert "could not keep its result" in until(owner, 2, "failed").why
            fill()
            with pytest.raises(errors.StateError, match="disk full"):
                owner.requests.number(1).release()
            assert not first.settled
            full.unlink()
            owner.requests.number(1).release()
            assert first.results["m"].get(20) > 0
            assert owner.audit.verify()
            kinds = [e.kind for e in owner._journal.entries()]
            assert kinds.count("exact") == 1
            assert "reserved" not in kinds
    finally:
        owner.stop()
