"""Pointer tensors at a real owner, over CURVE, in a child of its kernel: what comes back, what is lost, and what others can't do."""

import gc
import math
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import syft_lab as lab
from syft_lab import errors
from syft_lab.kernel import tensors as seats
from syft_lab.wire import messages as m
from tests import tapes
from tests.devices import DEVICES

from .kernels import Kernel

SCANS = torch.rand(40, 1, 6, 6)


@pytest.fixture(params=DEVICES)
def hosting(request, home, warm):
    """An owner with a tensor and a table, and alice who is invited."""
    owner = lab.Owner.start("hospital-a", device=request.param)
    owner.publish(
        SCANS, "scans", rows_public=True, privacy_unit="row", bounds=(0, 1), budget=lab.Budget(4.0, 1e-5), tags=["oncology"]
    )
    frame = pd.DataFrame(
        {
            "id": np.arange(100) // 2,
            "age": np.arange(100) % 90,
            "los": np.where(np.arange(100) % 10, 3.0, np.nan),
            "ward": ["a", "b"] * 50,
        }
    )
    terms = {
        "privacy_unit": "id",
        "max_contributions": 2,
        "bounds": {"age": (0, 110), "los": (0, 60)},
        "categories": {"ward": ["a", "b"]},
    }
    owner.publish(frame, "patients", rows_public=True, population="scans", **terms)
    owner.publish(frame, "hidden", population="scans", **terms)
    owner.invite("alice", budgets={"scans": lab.Budget(4.0, 1e-5)})
    owner.policy.allow("dp", dataset="scans", epsilon_per_query=2)
    owner.policy.allow("dp", dataset="patients", epsilon_per_query=2)
    yield owner
    owner.stop()


@pytest.fixture
def alice(hosting):
    with lab.connect("alice.syft") as session:
        yield session


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "complex64", "int64", "int8", "uint8", "bool"])
def test_tensors_of_all_types_travel_there_and_back(alice, dtype):
    for shape in ((3, 4), (), (0, 3), (1,)):
        t = (torch.randn(shape) * 5).to(getattr(torch, dtype))
        back = lab.send(t, alice).get()
        assert back.dtype == t.dtype
        assert back.shape == t.shape
        assert torch.equal(back, t)
    odd = torch.tensor([math.nan, math.inf, -0.0])
    assert torch.equal(lab.send(odd, alice).get().isnan(), odd.isnan())
    turned = torch.arange(12.0).reshape(3, 4).t()
    assert torch.equal(lab.send(turned, alice).get(), turned)
    assert torch.equal((lab.send(turned, alice) + 1)[1:, 0].get(), (turned + 1)[1:, 0])


def test_a_large_tensor_travels_in_parts(alice):
    t = torch.randint(0, 255, (30_000_000,), dtype=torch.uint8)
    assert torch.equal(lab.send(t, alice).get(), t)


@pytest.mark.slow
def test_two_and_a_half_gigabytes_travel_and_five_are_refused_before_they_do(hosting, alice):
    if int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) < 10 << 20:
        pytest.skip("a tensor of 2.4 GB needs a machine with 10 GB of free memory")
    t = torch.zeros(9 << 26)  # of 4 bytes; pages that nobody wrote to are no memory
    marks = torch.tensor([0, 5, (2 << 20) - 1, 2 << 20, t.numel() - 1])
    t[marks] = torch.arange(1.0, 6.0)
    x = lab.send(t, alice)
    assert torch.equal(x[marks].get(), torch.arange(1.0, 6.0))
    assert x.count_nonzero().get() == len(marks)
    part = x[: 3 << 20]
    assert torch.equal(part.get(), t[: 3 << 20])
    del x, part
    before = alice.tape.sent
    with pytest.raises(errors.FailedError, match="this needs 5120 MB more"):
        lab.send(torch.empty(5 << 30, dtype=torch.uint8), alice)
    assert alice.tape.sent - before < 40  # of 640 parts
    again = lab.send(t[: 1 << 26], alice)  # what was let go has made room
    assert again[0].get() == 1


def test_what_is_sent_is_what_a_large_tensor_held_then(alice):
    t = torch.zeros(20 << 20, dtype=torch.uint8)
    x = lab.send(t, alice)
    t += 1
    assert x.count_nonzero().get() == 0


def test_a_large_send_that_is_interrupted_leaves_nothing_at_the_owner(hosting, alice, monkeypatch):
    lab.send(torch.ones(3), alice).get()
    tape = alice.tape
    ((_, seat),) = hosting._tensors.seats()
    wait, calls = tape.wait, []

    def interrupted(future, *rest):
        calls.append(future)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return wait(future, *rest)

    monkeypatch.setattr(tape, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.send(torch.zeros(40 << 20, dtype=torch.uint8), alice)
    monkeypatch.undo()
    gc.collect()
    assert torch.equal((lab.send(torch.ones(3), alice) + 1).get(), torch.full((3,), 2.0))
    gc.collect()
    tape.flush()
    alice.ping()
    lab.send(torch.ones(1), alice).get()
    assert seat.call("stats", {})[0]["bytes"] < 1000


def test_a_large_value_comes_back_whole_over_a_link_that_breaks_and_the_kernel_keeps_none_of_it(hosting, alice):
    t = torch.randint(0, 255, (60 << 20,), dtype=torch.uint8)
    x = lab.send(t, alice)
    breaker = threading.Timer(0.05, alice.reconnect)
    breaker.start()
    try:
        assert torch.equal(x.get(), t)
        assert torch.equal(x.reshape(60, -1).t().get(), t.reshape(60, -1).t())  # a copy for all its parts
    finally:
        breaker.join()
    ((_, seat),) = hosting._tensors.seats()
    assert not any(isinstance(reply, m.Part) for reply in seat.replies.values())


def test_training_at_the_owner_is_what_it_is_here(alice):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    x, y = torch.rand(8, 1, 6, 6), torch.randint(0, 3, (8,))
    import copy

    twin = copy.deepcopy(net)
    keys = list(twin.state_dict())
    lab.send(twin, alice)
    assert list(twin.state_dict()) == keys
    assert all(isinstance(p, lab.PointerTensor) for p in twin.state_dict().values())
    for model, a, b in ((net, x, y), (twin, lab.send(x, alice), lab.send(y, alice))):
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(15):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(a), b)
            loss.backward()
            optimizer.step()
    assert torch.allclose(loss.get(), F.cross_entropy(twin(lab.send(x, alice)), lab.send(y, alice)).get(), atol=0.1)
    twin.get()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert type(q) is nn.Parameter
        assert torch.allclose(p, q, atol=1e-6)


def test_a_private_dataset_is_a_pointer_whose_values_stay(alice):
    x = alice["scans"]
    assert isinstance(x, lab.PointerTensor)
    assert (x.shape, x.dtype, len(x), x.size(1)) == (SCANS.shape, torch.float32, 40, 1)
    assert "rows(axis 0, 1 a person, in [0, 1]) of scans v1" in repr(x)
    for look in (lambda: x.get(), lambda: x[0].get(), lambda: x.mean().get(), lambda: (x * 0).sum().get()):
        with pytest.raises(errors.PrivateValueError, match=r"release|request"):
            look()
    for look in (lambda: x.sum().item(), lambda: bool(x.sum() > 0), lambda: x.tolist(), lambda: x.numpy(), lambda: np.asarray(x), lambda: float(x.sum()),
                 lambda: int(x.sum()), lambda: x in [1] or 1 in x, lambda: [1, 2][x.sum().long()], lambda: f"{x.sum().item():.2f}"):  # fmt: skip
        with pytest.raises(errors.PrivateValueError):
            look()
    assert "PointerTensor" in f"{x}"
    assert "PointerTensor" in x._repr_html_()


def test_printing_a_pointer_sends_nothing(alice, monkeypatch):
    monkeypatch.setattr("syft_lab.analyst.tape.IDLE_SECONDS", 300)
    x = alice["scans"]
    x.state, alice.ping()
    before = alice.tape.sent
    y = (x * 2).clamp(0, 1)
    repr(y), str(y), f"{y}", y._repr_html_(), y.shape, y.dtype, y.label, y.state
    assert y.state == "recorded, not sent yet"
    assert alice.tape.sent == before


def test_an_aggregate_is_released_under_noise_with_a_receipt(hosting, alice):
    mean = alice["scans"].clamp(0, 1).mean(0)
    assert mean.label.kind == "aggregate"
    exact = SCANS.mean(0)
    for delta in (0.0, 1e-6):
        found = mean.release(epsilon=1.0, delta=delta)
        assert found.value.shape == exact.shape
        assert (found.value - exact).abs().max() < 8 * found.accuracy
        said = found.receipt.details
        assert said["neighbours"] == "replace one row"
        assert "aten.clamp" in said["plan"]["text"]
        assert "aten.clamp" in said["question"] and "of scans" in said["question"]
        found.receipt.verify()
    again = mean.release(epsilon=1.0)
    assert (
        again.receipt.details["request"] == mean.release(epsilon=1.0).receipt.details["request"]
    )  # the same question at the same cost is free
    assert alice.budget().spent["scans"] == pytest.approx(2.0)
    with pytest.raises(errors.BudgetError):
        (mean * 2).release(epsilon=1.9).value, (mean * 3).release(epsilon=1.9).value
    with pytest.raises(errors.RefusedError):
        mean.release(epsilon=3.0).value  # noqa: B018
    with pytest.raises(errors.PrivateValueError, match="clamp"):
        alice["scans"].mean(0)[0].sin().release(epsilon=1.0)
    assert hosting.audit.verify()


def test_tables_and_tensors_of_the_same_people_are_added_as_theory_wants(hosting, alice):
    table = alice["patients"]
    table["age"].mean().release(epsilon=0.5).value  # noqa: B018 - add or remove a person
    assert alice.budget().spent["scans"] == pytest.approx(0.5)
    alice["scans"].clamp(0, 1).mean().release(epsilon=1.0).value  # noqa: B018 - replace one: from now on the first counts twice
    assert alice.budget().spent["scans"] == pytest.approx(2.0)
    table["age"].sum().release(epsilon=0.5).value  # noqa: B018
    assert alice.budget().spent["scans"] == pytest.approx(3.0)
    with pytest.raises(errors.BudgetError, match="twice|counted"):
        table["los"].sum().release(epsilon=0.6).value  # noqa: B018
    assert hosting.audit.verify()


def test_columns_of_a_table_whose_size_is_public_are_a_tensor(alice):
    x = alice["patients"].to_tensor(["age", "los"])
    assert (tuple(x.shape), x.dtype, x.label.k) == ((100, 2), torch.float32, 2)
    found = alice["patients"].to_tensor(["age"]).clamp(0, 110).mean().release(epsilon=2.0)
    assert abs(found.value.item() - np.mean(np.arange(100) % 90)) < 40
    with pytest.raises(errors.RefusedError, match="private"):
        alice["hidden"].to_tensor(["age"])
    with pytest.raises(errors.UsageError, match="numbers"):
        alice["patients"].to_tensor(["ward"])
    with pytest.raises(errors.UsageError):
        alice["patients"][alice["patients"].age > 3].to_tensor(["age"])
    message = m.Load(alice.tape.space, 0, 10**6, "hidden", 1, b'["age"]')
    with pytest.raises(errors.RefusedError):
        alice.tape.wait(alice.tape.queue(message, m.Ran))


def test_an_exact_value_is_asked_for_and_the_owner_decides(hosting, alice):
    asked = alice["scans"].sum((1, 2, 3)).max().request(reason="how bright")
    request = hosting.requests[0]
    request.wait()
    assert "aten.max" in request.code
    assert request.reason == "how bright"
    assert "nothing runs" in repr(request)
    with pytest.raises(errors.UsageError, match="no code can be run again"):
        request.drop_people()
    request.approve(digest=request.digest)
    request.wait()
    brightest = SCANS.sum((1, 2, 3)).max() if hosting.device == "cpu" else SCANS.to(hosting.device).sum((1, 2, 3)).max().cpu()
    assert torch.equal(request.result["value"], brightest)
    assert not asked.done()
    request.release()
    assert torch.equal(asked.get(30), brightest)
    asked.receipt.verify()
    denied = alice["scans"][0].request(reason="one person")
    hosting.requests.number(2).deny("no single records")
    with pytest.raises(errors.RefusedError, match="no single records"):
        denied.get(30)
    with pytest.raises(errors.UsageError, match="public"):
        lab.send(torch.ones(3), alice).request(reason="x")
    lost = torch.arange(3.0).index_select(0, (alice["scans"].sum() + 1e6).long().reshape(1)).request(reason="x")
    third = hosting.requests.number(3)
    third.wait()
    assert "index" in repr(third)
    third.approve(digest=third.digest)
    with pytest.raises(errors.FailedError, match="could not be computed") as caught:
        lost.get(30)
    assert "index" not in str(caught.value)
    assert hosting.audit.verify()


def test_a_lost_child_costs_its_values_alone_and_what_made_them_is_computed_again(hosting, alice):
    w = lab.send(torch.ones(3, 3), alice)
    y = (w @ w) + 1
    mean = alice["scans"].clamp(0, 1).mean()
    assert torch.equal(y.get(), torch.full((3, 3), 4.0))
    ((_, seat),) = hosting._tensors.seats()
    os.kill(seat._host.pid, signal.SIGKILL)
    with pytest.raises(errors.StalePointerError, match="recompute"):
        y.get()
    with pytest.raises(errors.StalePointerError):
        y + 1
    assert y.state == "lost"
    lab.recompute([y, mean, w])
    assert torch.equal(y.get(), torch.full((3, 3), 4.0))
    assert torch.equal((y + w).get(), torch.full((3, 3), 5.0))
    assert mean.release(epsilon=1.0).value is not None
    assert hosting.running
    assert alice["patients"].count().release(epsilon=0.1).value is not None  # a mean of so few may be withheld by its noise


def test_a_restarted_owner_says_so_and_the_analyst_goes_on(home):
    with Kernel(home) as kernel:
        kernel.run("import syft_lab as lab, torch\nowner = lab.Owner.start('far')")
        kernel.run(
            "owner.publish(torch.ones(5, 2), 't', rows_public=True, privacy_unit='row', bounds=(0, 1), budget=lab.Budget(1))\nowner.invite('alice')"
        )
        with lab.connect("alice.syft") as session:
            y = lab.send(torch.arange(3.0), session) * 2
            x = session["t"].clamp(0, 1)
            assert torch.equal(y.get(), torch.tensor([0.0, 2.0, 4.0]))
            kernel.run("owner.stop(); owner = lab.Owner.start('far')")
            with pytest.raises(errors.StalePointerError):
                y.get()
            assert torch.equal(y.recompute().get(), torch.tensor([0.0, 2.0, 4.0]))
            x.recompute()
            with pytest.raises(errors.PrivateValueError):
                x.get()
            kernel.run("owner.stop()")


def test_a_broken_link_in_the_middle_does_everything_once(hosting, alice):
    x = lab.send(torch.zeros(4), alice)
    for i in range(30):
        x = x + 1
        alice.tape.flush()
        if i % 10 == 5:
            alice.reconnect()
    assert torch.equal(x.get(), torch.full((4,), 30.0))


def test_a_hundred_thousand_temporaries_end_where_they_began(hosting, alice):
    x = lab.send(torch.ones(100), alice)
    x.get()
    ((_, seat),) = hosting._tensors.seats()
    before = seat.call("stats", {})[0]
    y = x
    for _ in range(100_000):
        y = y * 1.0
    assert torch.equal(y.get(), torch.ones(100))
    del y
    gc.collect()
    (x + 1).get()
    gc.collect()
    alice.tape.flush()
    alice.ping()
    (x + 2).get()
    alice.tape.flush()
    x.get()
    after = seat.call("stats", {})[0]
    assert after["ran"] >= 100_000
    assert (after["values"], after["bytes"]) == (before["values"], before["bytes"])


def test_memory_time_and_size_have_bounds_that_are_told(hosting, home):
    wall, n = (5, 1000) if hosting.device == "cpu" else (1, 3000)
    hosting.limits = lab.Limits(memory=256 << 20, wall=wall)
    hosting.invite("bob", path="bob.syft")
    with lab.connect("bob.syft", alias="bobs") as bob:
        x = lab.send(torch.ones(n, n), bob)
        with pytest.raises(errors.FailedError, match="MB"):
            x.repeat(100, 100).get()
        y = x
        for _ in range(60):
            y = y @ x
        with pytest.raises(errors.FailedError, match="s that you may use"):
            y.sum().get()
        assert torch.equal((x[0] + 1).get(), torch.full((n,), 2.0))
        with pytest.raises(errors.FailedError, match="MB"):
            lab.send(torch.empty(300 << 20, dtype=torch.uint8), bob).get()


def test_what_is_not_in_the_table_is_refused_past_our_own_client(alice):
    from syft_lab import canonical
    from syft_lab.plans import Node, Plan, Ref

    x = lab.send(torch.ones(4), alice)
    x.get()
    tape = alice.tape
    for op in ("aten.set_.source_Tensor", "aten.item.default", "aten._local_scalar_dense.default", "aten.from_file.default", "prims.mul.default", "aten.nonzero.default",
               "aten.add_.Tensor", "aten.add.out", "aten.resize_.default", "profiler._record_function_enter_new.default", "aten.__class__.default"):  # fmt: skip
        made = Plan.of([Node(op, (Ref(0),), {}, (1,))], [0], [1])
        run = {"inputs": [x.child.number], "outputs": [tape.new().number], "free": [], "seeds": [], "plan": made.digest}
        facts = {"runs": [run], "plans": [len(made.canonical)]}
        reply, _ = tape.wait(tape.queue(m.Run(tape.space, 0, payload=[canonical.dumps(facts), made.canonical]), m.Ran))
        assert any(w in canonical.loads(reply.state)["lost"] for w in ("operation", "writes", "refused")), op
    nothing = {"inputs": [], "outputs": [], "free": [], "seeds": [], "plan": ""}
    for facts in (
        {},
        {"runs": [nothing], "plans": [2]},
        {"runs": [{**nothing, "inputs": ["1"]}], "plans": []},
        {"runs": [{**nothing, "inputs": [10**9], "plan": made.digest}], "plans": [2]},
        {"runs": [], "plans": [3, -1]},
        {"runs": {}, "plans": [2]},
        {"runs": [nothing] * 2000, "plans": [2]},
    ):
        with pytest.raises((errors.WireError, errors.UsageError)):
            tape.wait(tape.queue(m.Run(tape.space, 0, payload=[canonical.dumps(facts), b"{}"]), m.Ran))
    with pytest.raises(errors.WireError):
        tape.wait(tape.queue(m.Run(tape.space, 0, payload=[b"x"]), m.Ran))
    assert torch.equal(x.get(), torch.ones(4))


def test_one_analyst_does_not_reach_anothers_values(hosting, alice):
    x = lab.send(torch.ones(4), alice)
    x.get()
    hosting.invite("bob", path="bob.syft")
    with lab.connect("bob.syft", alias="bobs") as bob, pytest.raises(errors.UsageError):
        bob.tape.wait(bob.tape.queue(m.Fetch(alice.tape.space, 5, x.child.number, 0), m.Part))
    with lab.connect("bob.syft", alias="bobs") as bob:
        y = lab.send(torch.zeros(2), bob)
        with pytest.raises(errors.OtherOwnerError):
            x[:2] + y
        guess = m.Fetch(bob.tape.space, 0, x.child.number + 7, 0)
        with pytest.raises(errors.UsageError):
            bob.tape.wait(bob.tape.queue(guess, m.Part))


def test_a_revoked_analyst_computes_no_more(hosting, alice):
    x = lab.send(torch.ones(4), alice)
    x.get()
    ((_, seat),) = hosting._tensors.seats()
    hosting.revoke("alice")
    assert hosting._tensors.seats() == []
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{seat._host.pid}"):
        assert time.monotonic() < end, "the process of a revoked analyst is still there"
        time.sleep(0.02)
    with pytest.raises(errors.LabError, match="revoked"):
        (x + 1).get()
    again = str(hosting.invite("alice", path="again.syft"))
    assert "with all that alice had here before; another person needs another name" in again
    assert "had here before" not in str(hosting.invite("dora", path="dora.syft"))


def test_sessions_end_when_closed_or_idle_and_are_few(hosting, alice, monkeypatch):
    lab.send(torch.ones(4), alice).get()
    others = []
    for _ in range(seats.SPACES - 1):
        other = lab.connect("hospital-a")
        lab.send(torch.ones(1), other).get()
        others.append(other)
    late = lab.connect("hospital-a")
    with pytest.raises(errors.BusyError, match="close"):
        lab.send(torch.ones(1), late).get()
    others.pop().close()
    assert len(hosting._tensors.seats()) == seats.SPACES - 1
    x = lab.send(torch.ones(1), lab.connect("hospital-a"))
    x.get()
    monkeypatch.setattr(seats, "IDLE_SECONDS", -1.0)
    hosting._tensors.idle()
    assert hosting._tensors.seats() == []
    with pytest.raises(errors.StalePointerError, match="idle"):
        x.get()
    for other in (*others, late, x.location):
        other.close()


def test_an_interrupt_ends_the_wait_and_closing_ends_what_runs(hosting, alice):
    x = lab.send(torch.ones(1500, 1500), alice)
    y = x
    for _ in range(40):
        y = (y @ x) / 1500

    def ends():
        with pytest.raises(errors.LabError):
            y.get()

    waiting = threading.Thread(target=ends, daemon=True)
    waiting.start()
    ((_, seat),) = hosting._tensors.seats() or [("", None)]
    end = time.monotonic() + 20
    while seat is None or seat._host is None:
        assert time.monotonic() < end
        ((_, seat),) = hosting._tensors.seats() or [("", None)]
    alice.close()
    waiting.join(10)
    assert not waiting.is_alive()
    assert hosting._tensors.seats() == []


def test_closing_ends_the_wait_for_what_was_taken_up_and_not_yet_sent(alice):
    x = lab.send(torch.ones(3), alice)
    y = x + 1
    y.get()
    tapes.fill(alice.tape)

    def ends():
        with pytest.raises(errors.ConnectionLost, match="closed"):
            y.get()

    waiting = threading.Thread(target=ends, daemon=True)
    before = alice.tape.sent
    waiting.start()
    end = time.monotonic() + 20
    while alice.tape.sent == before or alice.tape._pump.done() or not alice.tape._queue.empty():
        assert time.monotonic() < end
        time.sleep(0.01)
    alice.close()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_recording_comes_to_rest_and_is_sent(alice):
    x = lab.send(torch.ones(3), alice)
    y = x + 1
    sent = threading.Event()
    queue = alice.tape.queue
    alice.tape.queue = lambda *a, **k: (queue(*a, **k), sent.set())[0]
    y = y + 1
    assert sent.wait(10)
    assert y.state == "at the owner"


def test_datasets_are_found_by_words(alice):
    assert alice.search("oncology") == ["scans"]
    assert alice.search("age ward") == ["hidden", "patients"]
    assert alice.search("nothing of the kind") == []


def test_an_owner_chooses_the_device_and_one_that_is_not_there_is_said(home):
    with pytest.raises(errors.UsageError, match="cuda:0"):
        lab.Owner.start("hospital-a", device="tpu")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: test_a_gpu runs there")
    owner = lab.Owner.start("hospital-a", device="cuda:0")
    try:
        owner.invite("alice")
        with lab.connect("alice.syft") as session, pytest.raises(errors.StateError, match="no cuda:0"):
            lab.send(torch.ones(2), session).get()
    finally:
        owner.stop()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_a_gpu_gives_what_the_cpu_gives(home):
    owner = lab.Owner.start("hospital-a", device="cuda:0")
    try:
        owner.invite("alice")
        with lab.connect("alice.syft") as session:
            x = torch.randn(8, 3, 16, 16)
            net = nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(196, 2)
            )
            expected = net(x)
            assert torch.allclose(lab.send(net, session)(lab.send(x, session)).get(), expected, atol=1e-3)
    finally:
        owner.stop()


def test_what_comes_of_a_value_that_never_arrived_does_not_take_others_with_it(hosting, home):
    hosting.limits = lab.Limits(memory=64 << 20)
    hosting.invite("bob", path="bob.syft")
    with lab.connect("bob.syft", alias="bobs") as bob:
        fine = lab.send(torch.ones(3), bob)
        fine.get()
        tape = bob.tape
        missing = tape.make(fine._spec, tape.new())  # names what the owner was never given
        b = missing + 1
        with tape.lock:  # another plan in the same message
            tape._close_batch()
            a = fine + 1
            tape.flush()
        assert torch.equal(a.get(), torch.full((3,), 2.0))
        with pytest.raises(errors.FailedError, match="does not hold"):
            b.get()
        assert torch.equal((a + fine).get(), torch.full((3,), 3.0))
