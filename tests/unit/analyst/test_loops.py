"""Loops in recordings: found where they are, and cut so that the same is computed, with the same plans in each iteration."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import syft_lab as lab
from syft_lab import canonical
from syft_lab.analyst import loops
from syft_lab.plans import Node, Ref
from syft_lab.wire import messages as m

BODY = [f"op{i}" for i in range(loops.SHORTEST)]


@pytest.fixture
def alice_tape(monkeypatch):
    """A virtual owner, and the names of the plans that runs were sent with."""
    (alice,) = lab.virtual_owners("alice")
    sent, queue = [], alice.tape.queue

    def heard(message, *rest, **named):
        if isinstance(message, m.Run):
            sent.extend(run["plan"] for run in canonical.loads(bytes(message.payload[0]), limit=1 << 24)["runs"])
        return queue(message, *rest, **named)

    monkeypatch.setattr(alice.tape, "queue", heard)
    yield alice, sent
    alice.close()


def chain(names):
    """Each operation reads what the one before made."""
    return [Node(name, (Ref(i),), {}, (i + 1,)) for i, name in enumerate(names)]


def test_a_loop_is_found_at_the_end_of_a_recording_and_cut_wherever_it_is():
    nodes = chain(["a", "b", *BODY, *BODY, *BODY])
    loop = loops.found(nodes)
    assert sorted(loop.ops) == sorted(BODY)
    cuts = loops.cut(nodes, loop)
    assert all(tuple(n.op for n in nodes[a : a + len(loop.ops)]) == loop.ops for a in cuts[:-1] if a + len(loop.ops) in cuts)
    assert len(cuts) >= 3


def test_without_repetition_there_is_no_loop_and_nothing_is_cut():
    nodes = chain([f"once{i}" for i in range(300)])
    assert loops.found(nodes) == loops.NONE
    assert loops.cut(nodes, loops.NONE) == []
    assert loops.cut(nodes, loops.Loop(tuple(BODY), ())) == []


def test_short_iterations_are_taken_together():
    loop = loops.found(chain(["add", "mul", "relu"] * 100)).ops
    assert loops.SHORTEST <= len(loop) <= loops.SHORTEST + 3
    assert len(loop) % 3 == 0


def test_iterations_begin_where_the_fewest_values_cross():
    """64 values are made and live until the end of an iteration; one goes on to the next."""
    nodes, at = [], 0
    for _ in range(3):
        start = at
        for _ in range(loops.SHORTEST):
            nodes.append(Node("make", (Ref(start),), {}, (at + 1,)))
            at += 1
        nodes.append(Node("join", tuple(Ref(start + 1 + i) for i in range(loops.SHORTEST)), {}, (at + 1,)))
        at += 1
    loop = loops.found(nodes)
    assert loop == (("make",) * loops.SHORTEST + ("join",), ())


def test_operations_with_other_numbers_in_each_iteration_are_cut_off():
    nodes = chain(["select", *BODY, "step", *BODY] * 3)
    nodes = [n._replace(args=(*n.args, i)) if n.op in ("select", "step") else n for i, n in enumerate(nodes)]
    loop = loops.found(nodes)
    cuts = loops.cut(nodes, loop)
    steady = [{n.op for n in nodes[a:b]} for a, b in pairwise(cuts) if b - a >= loops.STEADY]
    assert len(steady) >= 4
    assert all(part <= set(BODY) for part in steady)


@given(st.lists(st.sampled_from("abc"), max_size=200), st.lists(st.sampled_from("abc"), min_size=1, max_size=90))
def test_cuts_are_places_of_the_recording_in_order(names, loop):
    cuts = loops.cut(chain(names), loops.Loop(tuple(loop), ()))
    assert cuts == sorted(set(cuts))
    assert all(0 <= c <= len(names) for c in cuts)


def test_a_training_as_it_is_typed_becomes_plans_that_come_again(alice_tape):
    """Two plans at most make its steps; what is computed is what torch computes here, to the last bit."""
    alice, sent = alice_tape
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    twin = lab.send(copy.deepcopy(net), alice)
    xs, ys = torch.randn(100, 5, 6), torch.randint(0, 3, (100, 5))
    px, py = lab.send(xs, alice), lab.send(ys, alice)

    def train(model, x, y):
        optimizer, losses = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), []
        for i in range(100):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[i]), y[i])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses

    here, there = train(net, xs, ys), train(twin, px, py)
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a, b.get())
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b.get())
        assert torch.equal(a.grad, b.grad.get())
    whole = [name for name in sent if not name.startswith("#")]
    assert len(whole) > 70  # a pause of half a second sends what there is, and so cuts elsewhere
    assert len(set(whole)) < 30


def test_what_ends_in_the_middle_of_an_iteration_is_kept_for_those_that_need_it(alice_tape):
    """A loop is interrupted by questions at odd places, and values of many iterations are held."""
    alice, _ = alice_tape
    local, remote = torch.ones(3), lab.send(torch.ones(3), alice)
    kept = []
    for i in range(700):
        for where in range(7):
            local = (local * 1.01 + 0.5).tanh() if where % 2 else local - 0.1
            remote = (remote * 1.01 + 0.5).tanh() if where % 2 else remote - 0.1
            if (i * 7 + where) % 331 == 0:
                kept.append((local, remote))
                assert torch.equal(remote.get(), local)
    for a, b in kept:
        assert torch.equal(b.get(), a)
