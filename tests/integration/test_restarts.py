"""An owner that stops in good order, and is back: what analysts wait for goes on, whatever state it is in."""

import subprocess
import sys

import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.kernel.executor import levels
from syft_lab.kernel.service import STOPPING
from syft_lab.wire import messages as m

from .deciding import approved, cell

needs_walls = pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}")

# An owner that ends as an interpreter does, without a word, once an analyst's long poll is under way.
BRIEFLY = """
import sys, time, syft_lab as lab
owner = lab.Owner.start("hospital-a")
print("up", flush=True)
end = time.monotonic() + 30
while not owner._service._waiting and time.monotonic() < end: time.sleep(0.02)
sys.exit(not owner._service._waiting)
"""


def restarted(owner):
    owner.stop()
    return lab.Owner.start("hospital-a")


@needs_walls
def test_ten_restarts_lose_no_result_in_any_state(owner, session, warm):
    states = ["filed", "seen", "denied", "review", "released", "cancelled"]
    asked = {name: session.file(cell(f"m = {i}")) for i, name in enumerate(states)}
    numbers = {name: r.number for name, r in asked.items()}
    owner._desk.seen(asked["seen"].id)
    owner.requests.number(numbers["denied"]).deny("no")
    approved(owner, numbers["review"])
    approved(owner, numbers["released"]).release()
    asked["cancelled"].cancel()
    results = {name: r.results["m"] for name, r in asked.items() if name != "released"}
    try:
        for _ in range(10):
            owner = restarted(owner)
            session.ping()
            assert not any(results[name].done() for name in ("filed", "seen", "review"))
        for name in ("filed", "seen"):
            approved(owner, numbers[name])
        for name in ("filed", "seen", "review"):
            owner.requests.number(numbers[name]).release()
        results["released"] = asked["released"].results["m"]  # asked for only now
        found = {name: results[name].get(30) for name in ("filed", "seen", "review", "released")}
        assert found == {"filed": 0, "seen": 1, "review": 3, "released": 4}
        for name in ("denied", "cancelled"):
            with pytest.raises(errors.LabError) as told:
                results[name].get(10)
            assert "fault" not in str(told.value)
    finally:
        owner.stop()


@needs_walls
def test_an_interpreter_that_ends_tells_long_polls_to_come_again(owner, session, warm):
    """Python stops all executors before it calls what is registered for its end: the service still answers then."""
    result = session.file(cell("m = 7")).results["m"]
    owner.stop()
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", BRIEFLY], stdout=subprocess.PIPE, text=True)
        try:
            assert "up" in process.stdout.read()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.stdout.close()
        assert not result.done()
    back = lab.Owner.start("hospital-a")
    try:
        approved(back, 1).release()
        assert result.get(30) == 7
    finally:
        back.stop()


LOOKS = {
    "budget": (m.Account, lambda s: s.budget()),
    "datasets": (m.Datasets, lambda s: s.datasets),
    "mock": (m.Mock, lambda s: s["patients"].age.mean().mock()),
    "price": (m.Price, lambda s: s["patients"].age.mean().price(epsilon=0.1)),
    "requests": (m.Watch, lambda s: s.requests),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_that_a_restart_cuts_off_is_asked_again(owner, session, monkeypatch, name):
    kind, look = LOOKS[name]
    handlers, calls = owner._service._handlers, []

    async def stopping_at_first(analyst, message):
        calls.append(message)
        if len(calls) == 1:
            raise errors.ConnectionLost(STOPPING)
        return await handlers[kind](analyst, message)

    monkeypatch.setattr(owner._service, "_handlers", {**handlers, kind: stopping_at_first})
    look(session)
    assert len(calls) == 2


def test_a_comment_that_comes_twice_is_one(owner, session):
    asked = session.file(cell())
    for _ in range(2):
        asked.comment("please")
    asked.comment("soon")
    assert [c["text"] for c in asked.comments] == ["please", "soon"]
    asked.cancel()
    asked.cancel()


def test_an_owner_that_runs_is_not_moved_in_silence(home):
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    from syft_lab.kernel.magics import OwnerMagics

    magics = OwnerMagics(shell=InteractiveShell())
    with capture_output():
        magics.run("start hospital-a")
    try:
        address = magics.owner.address
        for line in ("--listen 127.0.0.1:28431", "--advertise example.org:7000", "--device cuda"):
            with pytest.raises(errors.UsageError, match="runs already, with --.*%owner stop, then start"):
                magics.run(f"start hospital-a {line}")
        with capture_output():
            magics.run(f"start hospital-a --listen {address} --advertise {address} --device cpu")
        assert magics.owner.address == address
    finally:
        magics.owner.stop()
