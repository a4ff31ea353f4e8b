"""The second wall: what labels rest on is tried before anything leaves. It stops wrong rules by itself, and right plans pass."""

import math
import os
import random
import signal
import threading
import time

import pytest
import torch

import syft_lab as lab
from syft_lab import labels
from syft_lab.errors import FailedError, PrivateValueError
from syft_lab.kernel.executor import compiled, grid, total, trial
from syft_lab.kernel.executor.plans import Here
from syft_lab.kernel.executor.wall import Apart, Wall
from syft_lab.labels import Label
from tests.attacks.plans import ROWS, THREE, WRONG, N, claims, forget, label, mean, planted, prepared, right
from tests.tensors import LocalTape

SEEDS = range(100)
X = torch.rand(N, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def threads():
    """Puts back how many threads torch uses."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def stopped(ready, rules, seed):
    """Whether the trial of what planted rules say refuses a plan."""
    return any(trial.tried(c, seed) for c, op in claims(ready).items() if op.split(".")[1] in rules)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_stopped_by_the_wall_alone_with_each_of_100_seeds(name, threads):
    threads(1)
    rules, function, public, *judged = WRONG[name]
    with planted(rules, *judged):
        ready = prepared(function, [(X, ROWS)], public)
        assert label(ready).kind in ("aggregate", "public"), "the rule is not planted"
        assert [seed for seed in SEEDS if not stopped(ready, rules, seed)] == []


def careless_sum(fault):
    real = grid.summed

    def summed(x, bounds, dims, axis, k, mean, keepdim):
        found, low, width = real(x, bounds, dims, axis, k, mean, keepdim), bounds[0], bounds[1] - bounds[0]
        if fault == "nan":
            ints = (
                torch.round((x.double().clamp(*bounds) - low) * (grid.STEPS / width)).to(torch.int64).sum(dims, keepdim=keepdim)
            )
            return grid.Grid(ints, found.step, found.offset, found.l1, found.l2)
        by = {"k": k, "l2": 1}[fault]
        return grid.Grid(found.ints, found.step, found.offset, found.l1 // by, found.l2 / (2 if fault == "l2" else by))

    return summed


@pytest.mark.parametrize("fault", ["k", "nan", "l2"])
def test_a_fault_of_sums_is_stopped_by_the_wall_alone(fault, monkeypatch):
    monkeypatch.setattr(grid, "summed", careless_sum(fault))
    ready = prepared(lambda x: x.clamp(0, 1).sum(0), [(X, THREE)])
    assert [seed for seed in SEEDS if not stopped(ready, {"sum"}, seed)] == []


LOST = {
    "a place out of range": lambda x, t: mean(torch.nn.functional.embedding((x[:, 0] > 0.5).long() * 9, torch.zeros(2, 1))),
    "a constant's place out of range": lambda x, t: mean(torch.nn.functional.embedding((x[:, 0] > 0.731).long() * 9, torch.zeros(2, 1))),
    "by 0": lambda x, t: (t // (x[:, 0] <= 0.5).int()).clamp(0, 1).sum(0),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_what_fails_on_some_values_is_stopped_by_the_wall_alone(name, monkeypatch):
    monkeypatch.setattr(total, "made", lambda op, call, arguments, private: call)
    forget()
    try:
        ready = prepared(LOST[name], [(X, ROWS)], [torch.ones(N, dtype=torch.int32)])
        assert label(ready).kind == "aggregate"
        assert [seed for seed in SEEDS if not stopped(ready, {"embedding", "floor_divide"}, seed)] == []
    finally:
        forget()


def test_memory_that_nobody_wrote_is_stopped_by_the_wall_alone(monkeypatch):
    real = compiled._caller

    def careless(op, func, random, specs, outs, device):
        if op.startswith("aten.new_empty"):
            return lambda args, kwargs, seed: (func(*args, **kwargs),)
        return real(op, func, random, specs, outs, device)

    monkeypatch.setattr(compiled, "_caller", careless)
    forget()
    try:
        ready = prepared(lambda p: p.new_empty_strided((2,), (999,)), [], [torch.zeros(1)])
        assert label(ready).kind == "public"
        assert [seed for seed in SEEDS if not stopped(ready, {"new_empty_strided"}, seed)] == []
    finally:
        forget()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_right_plans_pass_at_three_sizes(count, threads):
    threads(count)
    known: dict[bytes, str] = {}
    refused, plans = [], 0
    for n in (7, 40, 130):
        for name, (function, data, public) in right(n).items():
            if name == "ResNet-18" and n > 40:
                continue  # it takes seconds, and shows no more
            ready = prepared(function, data, public)
            plans += 1
            assert label(ready).kind == "aggregate", (name, label(ready))
            for claim in claims(ready):
                if claim not in known:
                    known[claim] = trial.tried(claim)
            refused += [(n, name, known[c]) for c in claims(ready) if known[c]]
    print(f"{plans} plans, {len(known)} kinds of operations, {count} threads")
    assert refused == []
    assert plans == 3 * len(right(1)) - 1


def test_each_two_records_are_told_apart_by_some_set_in_both_orders():
    for count in (0, 1, 2, 3, 16, 50, 1000):
        sets = torch.stack(trial.antichain(count, random.Random(1)))
        apart = (sets[:, :, None] & ~sets[:, None, :]).any(0)
        assert bool((apart | torch.eye(count, dtype=torch.bool)).all())
    assert len(trial.antichain(1000, random.Random(1))) == 13


# Between an owner and the process that tries


@pytest.fixture
def hospital():
    (owner,) = lab.virtual_owners("hospital")
    owner.publish(X, "scans", bounds=(0, 1))
    yield owner
    owner.close()


def test_nothing_leaves_before_it_was_tried():
    tape = LocalTape()
    x, p = tape.asset(X, ROWS), tape.send(torch.rand(4, 4))
    y, z = mean(x @ p), (p @ p).sum()
    tape.flush()
    real = super(type(tape.runner), tape.runner)
    for leave, pointer in ((real.aggregate, y), (lambda n: real.fetch(n, 0, 8), z)):
        with pytest.raises(lab.errors.StateError, match="not tried"):
            leave(pointer.current.number)


def test_what_one_run_rests_on_is_owed_by_the_next():
    tape = LocalTape()
    tape.keep = True
    x, w = tape.asset(X, ROWS), tape.send(torch.rand(4, 5))
    h = (x @ w).tanh()
    tape.flush()
    z = h.softmax(1).clamp(0, 1)
    tape.flush()
    y = z.mean(0)
    tape.flush()
    ops = {kind.op.split(".")[1] for kind in tape.runner.space.held[y.current.number].behind}
    assert ops == {"mm", "tanh", "_softmax", "clamp", "mean"}


def test_a_release_behind_a_wrong_rule_is_refused_in_words_and_costs_nothing(hospital):
    with planted({"roll": lambda step: labels.replace(step.first.label, bounds=(0.0, 1.0))}):
        y = mean(hospital["scans"].roll(1, 0))
        assert y.label.kind == "aggregate"
        before = str(hospital.budget)
        with pytest.raises(PrivateValueError, match=r"nothing was spent.*aten\.roll.*fault of Syft Lab"):
            y.release(epsilon=0.5).value  # noqa: B018
        assert str(hospital.budget) == before
    assert mean(hospital["scans"]).release(epsilon=0.5).value.shape == (4,)


def test_the_receipt_names_the_rule_and_the_trial(hospital):
    result = mean(hospital["scans"]).release(epsilon=0.5)
    said = result.receipt.verify()["label"]
    assert said.startswith("by rule, and 2 kinds of operations tried on made-up values (sha256:")
    assert torch.__version__ in said


def test_a_claim_that_ends_the_process_which_tries_it_does_not_hold(monkeypatch):
    claim = next(iter(claims(prepared(mean, [(X, ROWS)]))))
    wall = Wall(Apart)
    wall.prove([claim])
    os.kill(wall._host._process.pid, signal.SIGKILL)  # not by the claim: it is begun anew
    wall.prove(list(claims(prepared(mean, [(X[:5], ROWS)]))))
    wall.close()

    class Crashes(Here):
        def call(self, do, facts, frames=(), data=None):
            raise lab.errors.StalePointerError("it crashed")

    crashing = Wall(lambda: Crashes("cpu", 1 << 30, 10.0))
    with pytest.raises(PrivateValueError, match="ended"):
        crashing.prove([claim])


def test_a_claim_that_cannot_be_tried_for_now_keeps_the_value_and_may_be_tried_again():
    class Short(Here):
        memory = 0

        def call(self, do, facts, frames=(), data=None):
            if not Short.memory:
                raise FailedError("the owner's machine has not enough memory for this plan")
            return super().call(do, facts, frames, data)

    wall, claim = Wall(lambda: Short("cpu", 1 << 30, 10.0)), next(iter(claims(prepared(mean, [(X, ROWS)]))))
    with pytest.raises(FailedError, match="could not be tried, so it stays"):
        wall.prove([claim])
    Short.memory = 1
    wall.prove([claim])


def test_two_sessions_try_a_claim_once():
    calls, claim = [], next(iter(claims(prepared(mean, [(X, ROWS)]))))

    class Counting(Here):
        def call(self, do, facts, frames=(), data=None):
            calls.append(do)
            return super().call(do, facts, frames, data)

    wall = Wall(lambda: Counting("cpu", 1 << 30, 10.0))
    workers = [threading.Thread(target=wall.prove, args=([claim],)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert calls == ["try"]


def test_a_claim_of_another_rule_than_the_one_that_tries_does_not_hold():
    """A runner that says more of an operation than the rule does where it is tried: they must agree."""
    ready = prepared(lambda x: x.clamp(0, 1).mean(0), [(X, THREE)])
    claim = next(c for c, op in claims(ready).items() if "mean" in op)
    assert trial.tried(claim) == ""
    assert "says something else" in trial.tried(claim.replace(b'"l1":0.75', b'"l1":0.25'))


def test_whole_numbers_that_are_private_places_are_tried_out_of_range_too():
    claim = next(c for c, op in claims(prepared(*[*right(16)["embedding, also out of range"]])).items() if "embedding" in op)
    step, specs = trial._parsed(claim)
    draw = trial._Draw(step, specs, random.Random(0))
    draw._private(1, specs[1])
    assert draw.places == {1: 3}
    assert int(draw.pools[1, True].max()) > 3 and int(draw.pools[1, True].min()) < 0


def test_private_labels_rest_on_nothing():
    tape = LocalTape()
    y = tape.asset(X, Label("private", ("d v1",))).sort(0).values
    tape.flush()
    assert tape.runner.space.held[y.current.number].behind == frozenset()


def test_a_known_kind_costs_less_than_a_millisecond():
    """A bound with room to spare: benchmarks have the figure."""
    tape = LocalTape()
    y = mean(tape.asset(X, ROWS))
    tape.flush()
    number = y.current.number
    tape.runner.aggregate(number)
    start = time.perf_counter()
    for _ in range(100):
        tape.runner.owed(number)
    assert (time.perf_counter() - start) / 100 < 1e-3


# Views of views, wherever they begin


def moved(rng, t):
    """One more move of a tensor, its first axis kept."""
    d, to = rng.randrange(1, t.dim()) if t.dim() > 1 else 0, t.dim()
    n = t.shape[d]
    moves = [lambda: t.contiguous(), lambda: t.flip(d) if d else t, lambda: t.unsqueeze(rng.randint(1, to))]
    if d:
        moves += [
            lambda: t.narrow(d, (start := rng.randrange(n)), rng.randint(1, n - start)),
            lambda: t.split((n + 1) // 2, d)[-1],
            lambda: t.transpose(d, rng.randrange(1, to)),
            lambda: t.reshape(t.shape[0], -1),
            lambda: t.flatten(1),
            lambda: t.narrow(d, rng.randrange(n), 1).expand(*t.shape),
            lambda: t.movedim(d, 1),
            lambda: t.contiguous().view(t.shape[0], 1, -1),
        ]
        moves += [lambda: t.select(d, rng.randrange(n)), lambda: t.unbind(d)[-1]] if to > 2 else []
    return rng.choice(moves)()


@pytest.mark.parametrize("seed", range(8))
def test_what_is_cut_out_of_a_part_is_no_false_alarm(seed):
    """Of records, and of sums, whose integers are moved as they are; each chain in another run than what it begins with."""
    for i in range(4):
        rng = random.Random(100 * seed + i)

        def chain(x, rng=rng):
            for _ in range(rng.randint(2, 5)):
                x = moved(rng, x)
            return x

        state = rng.getstate()
        ready = prepared(lambda x: chain(x).clamp(0, 1).sum(0), [(torch.rand(5, 4, 3), ROWS)])
        assert {op: trial.tried(claim) for claim, op in claims(ready).items() if trial.tried(claim)} == {}
        rng.setstate(state)
        whole = torch.rand(5, 4, 3)
        tape = LocalTape()
        sums = tape.asset(whole, ROWS).clamp(0, 1).sum(0, keepdim=True)
        tape.flush()
        found = chain(sums)
        rng.setstate(state)
        assert torch.equal(tape.held(found).tensor, chain(whole.clamp(0, 1).sum(0, keepdim=True)))
        if found._spec.label.kind != "aggregate":  # expanded: one person moves more entries than it says
            continue
        exact = tape.runner.aggregate(found.current.number)
        assert len(exact["ints"]) == found.numel()
        near = torch.tensor(exact["ints"]).double().reshape(found.shape) * exact["step"] + exact["offset"]
        assert torch.allclose(near, tape.held(found).tensor.double(), atol=1e-4)


@pytest.mark.parametrize("by", [1e-305, 1e-315, 1e300, 1e308])
def test_sizes_near_the_ends_of_floats_are_no_kernel_fault(by):
    tape = LocalTape()
    x = tape.asset(torch.rand(5, 4, dtype=torch.float64), ROWS)
    for made in (lambda: (x * by).sum(1).clamp(0, 1).mean(0), lambda: x.mean(0) * by, lambda: (x * by).sum((0, 1))):
        value = made()
        if value._spec.label.kind == "aggregate":
            tape.flush()
            assert value._spec.label.l1 > 0 and math.isfinite(value._spec.label.l1)
    for function in (lambda x: (x * by).sum(1).clamp(0, 1).mean(0), lambda x: x.mean(0) * by):
        ready = prepared(function, [(torch.rand(5, 4).double(), ROWS)])
        assert {op: said for claim, op in claims(ready).items() if (said := trial.tried(claim))} == {}
