"""Requests to run code: every decision, its refusals, and what survives a restart, a crash and a crowd."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import syft_lab as lab
from syft_lab import canonical, errors, values
from syft_lab.analyst.remote import as_frame
from syft_lab.cell import Cell
from syft_lab.identity import Keys
from syft_lab.kernel.executor import levels
from syft_lab.wire import messages as m

from .kernels import Kernel

pytestmark = [
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]


def cell(code="m = patients.age.mean()", returns=("m",), **more):
    return Cell(code, (("patients", 1),), tuple(returns), more.pop("params", {}), more.pop("reason", "to know"))


def until(owner, number, *states, seconds=40):
    """Wait for an event of the desk, not for a time."""
    request, changed = owner.requests.number(number), threading.Event()
    owner._desk.on_change.append(lambda _: changed.set())
    end = time.monotonic() + seconds
    while request.state not in states:
        assert time.monotonic() < end, request
        changed.wait(0.5)
        changed.clear()
    return request


def test_an_approval_is_about_a_digest_and_nothing_else(owner, session):
    asked = session.file(cell())
    request = owner.requests[0]
    for wrong in ("", "sha256:" + "0" * 64, 1, request.digest.upper(), request.digest + " "):
        with pytest.raises(errors.UsageError, match="another digest"):
            request.approve(digest=wrong)
    other = session.file(cell("m = patients.age.max()"))
    with pytest.raises(errors.UsageError, match="another digest"):
        request.approve(digest=other.digest)
    assert request.state == "filed"
    assert asked.digest == request.digest != other.digest


def test_the_inbox_keeps_what_was_decided_last_whenever_it_was_filed(owner, session):
    for what in ("min", "max", "sum"):
        session.file(cell(f"m = patients.age.{what}()"))
    for number in (3, 2, 1):
        owner.requests.number(number).deny("not this month")
    assert [one["number"] for one in owner.requests.shown(1)[0]] == [1]
    session.file(cell("m = patients.age.std()"))
    found, others = owner.requests.shown(2)
    assert ([one["number"] for one in found], others) == ([4, 1, 2], 3)
    assert [one["number"] for one in owner.requests.shown(0)[0]] == [4]


def test_the_digest_covers_all_that_matters_and_not_the_reason(owner, session):
    base = session.file(cell()).digest
    assert session.file(cell(reason="another")).digest == base
    same_but = [
        cell("m = patients.age.mean() "),
        cell(returns=("m", "n"), code="m = n = 1"),
        cell(params={"k": 1}),
        cell(params={"k": 2}),
    ]
    digests = [session.file(c).digest for c in same_but]
    assert len({base, *digests}) == 5
    found = owner._desk.cell(owner._desk.rows()[0])
    commitment = [d["commitment"] for d in owner._desk.terms(owner._desk.rows()[0])["data"]]
    assert found.digest(commitment, owner.environment) == base
    assert found.digest(["another version"], owner.environment) != base
    assert found.digest(commitment, {**owner.environment, "pandas": "0"}) != base


def test_nothing_runs_or_leaves_out_of_order(owner, session):
    asked = session.file(cell())
    request = owner.requests[0]
    for early in (request.release, request.withhold):
        with pytest.raises(errors.UsageError):
            early()
    with pytest.raises(errors.UsageError, match="no result"):
        _ = request.result
    with pytest.raises(errors.UsageError, match="say why"):
        request.deny("  ")
    request.approve(digest=request.digest)
    with pytest.raises(errors.UsageError, match="can't be approved"):
        request.approve(digest=request.digest)
    until(owner, 1, "review")
    assert not asked.settled
    with pytest.raises(errors.UsageError):
        request.deny("too late")
    request.release()
    with pytest.raises(errors.UsageError):
        request.release()
    with pytest.raises(errors.UsageError):
        request.cancel()
    assert asked.results["m"].get(20) == request.result["m"]
    kinds = [e.kind for e in owner._journal.entries() if e.body.get("request") == asked.id]
    assert kinds == ["filed", "approved", "started", "ran", "exact"]
    assert owner.audit.verify()


def test_a_withheld_result_is_gone_and_the_analyst_reads_why(owner, session):
    asked = session.file(cell())
    request = owner.requests[0]
    request.approve(digest=request.digest)
    until(owner, 1, "review")
    request.withhold("a cell of the table is too small")
    with pytest.raises(errors.RefusedError, match="too small"):
        asked.results["m"].get(20)
    with pytest.raises(errors.UsageError, match="no result"):
        _ = request.result
    left = list((owner._folder / "requests").rglob("result.bin"))
    assert left == []


def test_results_of_every_kind_arrive_with_a_receipt(owner, session):
    code = """
import numpy as np, torch
number = patients.age.mean()
array = np.arange(6.0).reshape(2, 3)
tensor = torch.ones(2, 2)
series = patients.groupby("ward").age.mean()
table = patients[["age", "los_days"]].describe()
"""
    asked = session.file(cell(code, ("number", "array", "tensor", "series", "table")))
    request = owner.requests[0]
    request.approve(digest=request.digest)
    until(owner, 1, "review")
    request.release()
    found = {n: r.get(20) for n, r in asked.results.items()}
    assert found["array"].shape == (2, 3)
    assert found["tensor"].sum() == 4
    assert isinstance(found["series"], pd.Series)
    assert isinstance(found["table"], pd.DataFrame)
    receipt = asked.results["table"].receipt
    said = receipt.verify()
    assert owner.isolation.startswith(said["isolation"])
    assert said["cell"]["code"] == code
    assert said["digest"] == request.digest
    assert session.budget().spent == {"clinic": 0.0}
    assert "1 exact release" in repr(session.budget())
    path = receipt.save("receipt.json")
    done = subprocess.run([sys.executable, "-m", "syft_lab", "verify", str(path)], capture_output=True, text=True, timeout=60)
    assert "good. hospital-a released number, array, tensor, series, table of request 1 to alice" in done.stdout


def test_what_the_cell_sees_is_what_was_published_and_what_the_mock_promised(owner, session, patients):
    session.file(cell("m = len(patients)\nt = patients.head(3)", ("m", "t")))
    request = owner.requests[0]
    request.approve(digest=request.digest)
    until(owner, 1, "review")
    assert "patient_id" not in request.result["t"].columns
    assert list(request.result["t"].columns) == [c.name for c in session.source("patients").schema.columns]
    mock = as_frame(session.mock_of(session.source("patients")))
    request.withhold()
    dtypes = "import pandas as pd\nm = pd.Series([str(d) for d in patients.dtypes])"
    again = session.file(cell(dtypes))
    request = owner.requests.number(again.number)
    request.approve(digest=request.digest)
    until(owner, again.number, "review")
    assert list(request.result["m"]) == [str(d) for d in mock.dtypes]


def test_a_rule_lets_exactly_this_code_run_so_many_times(owner, session):
    first = session.file(cell())
    owner.requests[0].deny("let me make a rule")
    rule = owner.policy.allow("code", analyst="alice", digest=first.digest, times=2, review=False)
    for _ in range(2):
        assert session.file(cell()).results["m"].get(40) > 0
    third = session.file(cell())
    assert third.state == "filed"
    assert session.file(cell("m = patients.age.min()")).state == "filed"
    owner.policy.remove(rule)
    owner.policy.allow("code", analyst="alice", digest=first.digest, times=9)
    reviewed = session.file(cell())
    assert until(owner, reviewed.number, "review").state == "review"
    for bad in (
        {},
        {"analyst": "alice"},
        {"analyst": "alice", "digest": "x"},
        {"analyst": "alice", "digest": first.digest, "times": 0},
    ):
        with pytest.raises(errors.UsageError):
            owner.policy.allow("code", **bad)


def test_others_requests_do_not_exist(owner, session):
    asked = session.file(cell())
    owner.invite("bob", budgets={"clinic": 1.0})
    with lab.connect("bob.syft", alias="bobs") as bob:
        assert bob.requests == []
        with pytest.raises(errors.UsageError, match="no request"):
            bob._filed.cancel(asked)
        with pytest.raises(errors.UsageError, match="no request"):
            bob._ask(m.Collect(asked.id, 0), m.Collected)
        assert bob.file(cell()).number == 2
        assert [r.number for r in bob.requests] == [2]
    assert owner.requests.number(1).state == "filed"


def test_a_guest_and_an_owner_without_walls_refuse(home, patients, terms, monkeypatch):
    monkeypatch.setenv("SYFT_LAB_ISOLATION", "L0")
    with_none = lab.Owner.start("bare")
    with_none.publish(patients, name="patients", budget=lab.Budget(3), **terms)
    with_none.invite("alice")
    with_none.invite("gus", role="guest")
    assert with_none.isolation.startswith("L0")
    with lab.connect("alice.syft") as session, pytest.raises(errors.RefusedError, match="can't run code: its isolation is L0"):
        session.file(cell())
    with_none.stop()
    monkeypatch.delenv("SYFT_LAB_ISOLATION")
    again = lab.Owner.start("bare")
    with lab.connect("gus.syft", alias="gus") as guest, pytest.raises(errors.RefusedError, match="guest"):
        guest.file(cell())
    again.stop()


def test_the_same_filing_twice_is_one_request(owner, session):
    message = m.File("ab" * 16, canonical.dumps(cell().to_json()), 0)
    first, second = (canonical.loads(session._ask(message, m.Filed).request) for _ in range(2))
    assert first["number"] == second["number"] == 1
    other = m.File("ab" * 16, canonical.dumps(cell("m = 2").to_json()), 0)
    with pytest.raises(errors.UsageError, match="used for another"):
        session._ask(other, m.Filed)


def test_a_withdrawn_dataset_stops_an_approved_run(owner, session):
    asked = session.file(cell())
    owner.withdraw("patients")
    owner.requests[0].approve(digest=asked.digest)
    assert "withdrawn" in until(owner, 1, "failed").why
    with pytest.raises(errors.FailedError, match="withdrawn"):
        asked.results["m"].get(20)


def test_what_was_filed_with_an_access_that_is_revoked_does_not_run(owner, session):
    asked = session.file(cell())
    owner.revoke("alice")
    owner.requests[0].approve(digest=asked.digest)
    assert "revoked" in until(owner, 1, "failed").why
    assert "started" not in [e.kind for e in owner._journal.entries()]
    with pytest.raises(errors.RefusedError, match="revoked"):
        asked.results["m"].get(40)


def test_a_changed_result_file_is_not_released(owner, session):
    session.file(cell())
    request = owner.requests[0]
    request.approve(digest=request.digest)
    until(owner, 1, "review")
    (path,) = (owner._folder / "requests").rglob("result.bin")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(errors.StateError, match="not the one that ran"):
        request.release()
    assert request.state == "review"


def test_a_run_has_limits_and_the_owner_sets_them(owner, session):
    owner.limits = lab.Limits(wall=0.5)
    asked = session.file(cell("import time\nif len(patients) > 200: time.sleep(60)\nm = 1"))
    request = owner.requests[0]
    request.approve(digest=request.digest)
    assert "longer than 0.5 s" in until(owner, 1, "failed").why
    with pytest.raises(errors.FailedError, match=r"longer than 0.5 s"):
        asked.results["m"].get(20)
    with pytest.raises(errors.UsageError):
        owner.limits = {"wall": 1}
    with pytest.raises(errors.UsageError):
        lab.Limits(wall=0)


HOSTILE = "<img src=x onerror=alert(1)>\u202eevil\u2066\u200b\x1b[31mred\x07 \u0430dmin"


def test_an_analysts_strings_are_shown_as_text(owner, session):
    session.file(cell(f"m = 1  # {HOSTILE}\n", reason=HOSTILE, params={"p": HOSTILE}))
    request = owner.requests[0]
    for shown in (repr(request), request._repr_html_(), repr(owner), repr(owner.inbox), owner._repr_html_()):
        assert not set(shown) & set("\u202e\u2066\u200b\x1b\x07")
    assert "<img" not in request._repr_html_()
    assert "\\u202e" in repr(request)
    done = subprocess.run(
        [sys.executable, "-m", "syft_lab", "requests", "show", "1"], capture_output=True, text=True, timeout=60
    )
    assert not set(done.stdout) & set("\u202e\u2066\u200b\x1b\x07"), done.stdout
    assert "\\u202e" in done.stdout


def terminal(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "syft_lab", "requests", *arguments], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def test_a_terminal_decides_too(owner, session):
    assert terminal("list") == (0, "no requests yet\n")
    asked = session.file(cell())
    denied = session.file(cell("m = 2"))
    assert "filed        alice            patients v1 → m" in terminal("list")[1]
    code, shown = terminal("show", "1")
    assert code == 0
    assert f"syft-lab requests approve 1 {asked.digest}" in shown
    assert terminal("approve", "1")[0] == 2
    assert "another digest" in terminal("approve", "1", denied.digest)[1]
    code, shown = terminal("approve", "1", asked.digest)
    assert code == 0 and shown.startswith("request 1: ") and "filed" not in shown  # it may run, or have run, by now
    assert terminal("deny", "2", "not", "this", "one") == (0, "request 2: denied (not this one)\n")
    until(owner, 1, "review")
    assert "m: number, 8 bytes" in terminal("show", "1")[1]
    assert terminal("release", "1")[0] == 0
    assert asked.results["m"].get(20) > 0
    assert terminal("release", "7")[1] == "syft-lab: there is no request 7\n"
    owner.stop()
    assert terminal("list")[0] == 1


def test_no_other_key_may_manage(owner, session):
    with pytest.raises(errors.RefusedError, match="may not read all requests"):
        session._ask(m.Manage(b'{"do":"list"}'), m.Managed)
    key = owner._folder / "terminal.json"
    assert key.stat().st_mode & 0o077 == 0
    assert Keys.load(key).public.curve != owner.keys.public.curve


def test_twenty_requests_at_once(owner, session):
    asked = [None] * 20

    def file(i):
        asked[i] = session.file(cell(f"m = patients.age.sum() + {i}"))

    threads = [threading.Thread(target=file, args=(i,)) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    for request in owner.requests:
        request.approve(digest=request.digest)
    for number in range(1, 21):
        until(owner, number, "review", seconds=90)
    for request in list(owner.requests):
        request.release()
    found = [r.results["m"].get(60) for r in asked]
    assert [v - found[0] for v in found] == list(range(20))
    starts = [e.body["request"] for e in owner._journal.entries() if e.kind == "started"]
    assert len(starts) == len(set(starts)) == 20


def test_a_restart_of_the_owner_goes_on_where_it_was(home, owner, session):
    waiting, approved, reviewed = (session.file(cell(f"m = {i} + patients.age.mean() * 0")) for i in range(3))
    owner.requests.number(3).approve(digest=reviewed.digest)
    until(owner, 3, "review")
    owner.stop()
    again = lab.Owner.start("hospital-a")
    try:
        assert [again.requests.number(i).state for i in (1, 2, 3)] == ["filed", "filed", "review"]
        again.requests.number(3).release()
        assert reviewed.results["m"].get(30) == 2
        again.requests.number(2).approve(digest=approved.digest)
        until(again, 2, "review")
        again.requests.number(1).deny("after the restart")
        with pytest.raises(errors.RefusedError, match="after the restart"):
            waiting.results["m"].get(30)
    finally:
        again.stop()


HOST = """
%load_ext syft_lab
%owner start hospital-a
import numpy as np, pandas as pd, syft_lab as lab
table = pd.DataFrame({"age": np.arange(1000) % 90})
owner.publish(table, "patients", privacy_unit="row", bounds={"age": (0, 110)}, budget=lab.Budget(3))
owner.invite("alice")
"""
STATES = [
    "filed",
    "approved",
    "review",
    "released",
    "running",
]  # in this order, so that each is there when the kernel is killed
SLOW = "import time\nif len(patients) > 500: time.sleep({})\nm = patients.age.sum() + {}"
REACH = """
def reach(number, state):
    r = owner.requests.number(number)
    while r.mock is None: time.sleep(0.01)
    queue = owner._runs._queue
    if state == "approved": queue.put = lambda *_: None  # journaled, and killed before a run can begin
    if state != "filed": r.approve(digest=r.digest)
    if state == "approved": del queue.put
    wanted = {"running": "running", "filed": "filed", "approved": "approved"}.get(state, "review")
    while r.state not in (wanted, "seen"): time.sleep(0.002)
    if state == "released": r.release()
"""


def test_a_killed_kernel_runs_nothing_twice_and_releases_nothing_undecided(home):
    with Kernel(home) as kernel:
        kernel.run(HOST + "import time" + REACH)
        with lab.connect("alice.syft") as session:
            asked = {}
            for number, state in enumerate(STATES, 1):
                asked[state] = session.file(cell(SLOW.format(60 if state == "running" else 0, number)))
                kernel.run(f"reach({number}, {state!r})")
            zygote = kernel.run("print(owner._executor.pid)").strip()
            kernel.kill()
            gone(int(zygote))
            owner = lab.Owner.start("hospital-a")
            try:
                for number, state in enumerate(STATES, 1):
                    after = {"approved": "review", "running": "interrupted"}.get(state, state)
                    request = until(owner, number, after)
                    if state == "filed":
                        request.approve(digest=request.digest)
                        until(owner, number, "review")
                    if state in ("filed", "approved", "review"):
                        assert not asked[state].results["m"].done()
                        request.release()
                    if state == "running":
                        with pytest.raises(errors.FailedError, match="stopped while it ran"):
                            asked[state].results["m"].get(30)
                    else:
                        assert asked[state].results["m"].get(30) == sum(i % 90 for i in range(1000)) + number
                    kinds = [e.kind for e in owner._journal.entries() if e.body.get("request") == asked[state].id]
                    assert kinds.count("started") == 1
                    assert kinds.count("exact") == (state != "running")
                assert owner.audit.verify()
            finally:
                owner.stop()


def kill_tree(pid: int) -> None:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        kill_tree(int(child))
    os.kill(pid, 9)


def gone(pid: int, seconds: float = 10) -> None:
    """The fork server ends with its owner."""
    end = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        status = Path(f"/proc/{pid}/stat").read_text() if Path(f"/proc/{pid}/stat").exists() else ") Z"
        if status.rpartition(")")[2].split()[0] == "Z":
            return
        assert time.monotonic() < end, "the fork server outlived its owner"
        time.sleep(0.02)


@pytest.mark.cold
def test_a_lost_fork_server_fails_the_run_and_not_the_owner(owner, session, monkeypatch):
    session.file(cell("import time\nif len(patients) > 200: time.sleep(60)\nm = 1"))
    request, began, run = owner.requests[0], threading.Event(), owner._executor.run

    def watched(name, job, then=lambda: None):
        return run(name, job, lambda: (then(), began.set() if name == request.id else None))

    monkeypatch.setattr(owner._executor, "run", watched)
    request.approve(digest=request.digest)
    assert began.wait(60)  # lost before that, the job would simply run in the next one
    kill_tree(owner._executor.pid)  # under bubblewrap the fork server is a child of what we started
    assert "lost" in until(owner, 1, "failed").why
    again = session.file(cell())
    owner.requests.number(2).approve(digest=again.digest)
    until(owner, 2, "review")
    assert owner.audit.verify()


def test_a_page_gets_nothing_private_but_in_reply_to_a_click(owner, session):
    session.file(cell("m = patients.age.max()\nprint('the oldest is', m)\nm = m + 0.125"))
    request = owner.requests[0]
    request.approve(digest=request.digest)
    until(owner, 1, "review")
    inbox = owner.inbox
    inbox.refresh()
    state = json.dumps(inbox.get_state(), default=str)
    assert "the oldest is" not in state.replace("print('the oldest is'", "").replace("'the oldest is'", "")
    assert str(request.result["m"]) not in state
    found = inbox.act({"do": "preview", "id": request.id})
    assert "the oldest is" in found["log"]
    assert str(request.result["m"]) in found["values"][0]["preview"]
    with pytest.raises(errors.UsageError, match="another digest"):
        inbox.act({"do": "approve", "id": request.id, "digest": "sha256:0"})
    with pytest.raises(errors.UsageError):
        inbox.act({"do": "publish"})
    inbox.act({"do": "release", "id": request.id})
    assert request.state == "released"


def test_mean_of_a_column_with_nulls_is_pandas_own(owner, session, patients):
    asked = session.file(cell("m = patients.los_days.replace([float('inf'), -float('inf')], None).mean()"))
    request = owner.requests[0]
    request.approve(digest=request.digest)
    until(owner, 1, "review")
    request.release()
    assert np.isfinite(asked.results["m"].get(20))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_a_published_tensor_arrives_as_it_was(home, dtype):
    import torch

    owner = lab.Owner.start("imaging")
    try:
        scans = (torch.arange(200 * 3 * 4).reshape(200, 3, 4) % 7).to(getattr(torch, dtype))
        published = {"name": "scans", "privacy_unit": "row", "rows_public": True, "bounds": (0, 7), "budget": lab.Budget(1)}
        owner.publish(scans, **published)
        owner.publish(scans, **published)  # the same again is a no-op
        owner.invite("alice", budgets={"scans": 1.0})
        with lab.connect("alice.syft") as session:
            stand_in = session.stand_in(session.source("scans"))
            assert stand_in.dtype == scans.dtype
            assert tuple(stand_in.shape) == (64, 3, 4)
            assert session["scans"].shape == scans.shape
            code = "s = scans.sum(0)\nscans[0] = 0\nn = scans.shape[0]"
            asked = session.file(Cell(code, (("scans", 1),), ("s", "n"), {}))
            request = owner.requests[0].wait()
            assert "s (tensor 3×4), n (number)" in repr(request)
            request.approve(digest=request.digest)
            request.wait().release()
            assert torch.equal(asked.results["s"].get(20), scans.sum(0))
            assert asked.results["n"].get() == 200
        owner.stop()
        owner = lab.Owner.start("imaging")
        assert owner.audit.verify().tables == 1
    finally:
        owner.stop()


def test_what_is_no_tensor_to_publish_is_refused_in_words(home):
    import torch

    owner = lab.Owner.start("imaging")
    good = {"name": "t", "privacy_unit": "row", "rows_public": True, "budget": lab.Budget(1)}
    try:
        for data, change, word in [
            (torch.ones(3), {"rows_public": False}, "rows_public=True"),
            (torch.ones(3), {"privacy_unit": "id"}, "privacy_unit='row'"),
            (torch.ones(3), {"bounds": (1, 0)}, "low < high"),
            (torch.ones(3).to_sparse(), {}, "dense"),
            (torch.ones(3, dtype=torch.complex64), {}, "can't be published"),
            (torch.tensor(1.0), {}, "can't be published"),
            (torch.ones(0, 2), {}, "can't be published"),
            (np.array(["a"]), {}, "can't be published"),
            (pd.DataFrame({"a": [1]}), {"bounds": (0, 1)}, "by column"),
        ]:
            with pytest.raises(errors.UsageError, match=word):
                owner.publish(data, **{**good, **change})
        owner.publish(torch.ones(3), **good)
        owner.policy.allow("dp", dataset="t", epsilon_per_query=1)
        owner.invite("alice", budgets={"t": 1.0})
        with lab.connect("alice.syft") as session, pytest.raises(errors.RefusedError, match="is a tensor"):
            session._ask(m.Price("t", 1, b'{"aggregate":"count"}', 1000, 0), m.Priced)
    finally:
        owner.stop()


def test_a_request_of_a_stopped_owner_says_so(owner, session):
    session.file(cell())
    request = owner.requests[0]
    owner.stop()
    for use in (lambda: request.state, lambda: request.deny("no"), lambda: list(owner.requests), lambda: repr(request)):
        with pytest.raises(errors.StateError, match="stopped"):
            use()


@pytest.mark.cold
def test_what_went_wrong_on_the_owners_machine_stays_there(owner, session, monkeypatch):
    monkeypatch.setattr(
        "syft_lab.kernel.executor.origin.command", lambda *_: [sys.executable, "-c", "raise SystemExit('/home/ada/secret')"]
    )
    asked = session.file(cell())
    request = owner.requests[0]
    request.approve(digest=request.digest)
    until(owner, 1, "failed")
    with pytest.raises(errors.FailedError, match="can't run code now") as caught:
        asked.results["m"].get(20)
    assert "ada" not in str(caught.value)
    told = threading.Event()
    owner.console.on_change.append(told.set)
    while "/home/ada/secret" not in repr(owner.console.card()):  # said to the owner soon after the request has failed
        assert told.wait(20)
        told.clear()


def test_a_strangers_answer_at_the_owners_address_is_not_believed_at_once(home, owner, session):
    """While an owner restarts, whatever answers at its port (here a plain TCP server) must not end what is awaited."""
    asked = session.file(cell())
    request = owner.requests[0].wait()
    request.approve(digest=request.digest)
    request.wait()
    port = int(owner.address.rpartition(":")[2])
    owner.stop()
    with socket.create_server(("127.0.0.1", port), reuse_port=False) as stranger:
        stranger.settimeout(30)
        for _ in range(2):
            stranger.accept()[0].close()
    again = lab.Owner.start("hospital-a")
    try:
        assert not asked.settled
        again.requests[0].release()
        assert asked.results["m"].get(60) > 0
    finally:
        again.stop()


def test_the_journal_does_not_let_a_result_that_waits_be_guessed(owner, session):
    """Until its release a result is in the journal as a salted commitment: a digest of a small number could be tried out."""
    session.file(cell("m = len(patients)"))
    request = owner.requests[0]
    request.approve(digest=request.digest)
    until(owner, 1, "review")
    ran = next(e for e in owner._journal.entries() if e.kind == "ran")
    guesses = {hashlib.sha256(values.encode({"m": n})).hexdigest() for n in range(5000)}
    assert not guesses & set(ran.body.values())
    assert str(request.result["m"]) not in str(
        {k: v for k, v in ran.body.items() if k not in ("commitment", "request", "seed")}
    )
    request.release()
    released = next(e for e in owner._journal.entries() if e.kind == "exact")
    assert not guesses & set(map(str, released.body.values()))  # nor later: whoever reads the journal sees no data


def test_a_cell_whose_dataset_went_away_says_so_in_place_of_a_run_on_the_mock(owner, session):
    busy = session.file(cell("import time; time.sleep(1)\nm = 1"))  # keeps the mock runs busy
    session.file(cell("m = 2"))
    owner.withdraw("patients")
    request = owner.requests.number(busy.number + 1).wait(60)
    assert "withdrawn" in request.mock["why"]
    assert "fails: it could not run" in repr(request)
