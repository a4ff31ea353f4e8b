"""Plans: one plan is one owner's, a recording is of its thread, and a plan holds for a call that sees what it saw."""

import asyncio
import dataclasses
import threading
import types
import unittest.mock
from collections import ChainMap, UserDict, UserList, deque

import numpy as np
import pytest
import torch
import torch.nn as nn

import syft_lab as lab
from syft_lab import errors, record


@pytest.fixture(scope="module")
def owners():
    alice, bob = lab.virtual_owners("alice", "bob")
    lab.send(torch.zeros(50), bob)  # numbers of values differ: one of bob's may be another value of alice's
    yield alice, bob
    alice.close()
    bob.close()


def at(owner, *numbers):
    return lab.send(torch.tensor(numbers), owner)


def both(a, b):
    """Two pointers as a function may be given them."""
    return {
        "arguments": (lambda x, y: x * y, (a, b), {}),
        "keyword": (lambda x, y: x * y, (a,), {"y": b}),
        "list": (lambda xs: xs[0] * xs[1], ([a, b],), {}),
        "nested": (lambda d: d["x"][0] * d["y"]["z"][1], ({"x": (a,), "y": {"z": [1, b]}},), {}),
        "closure": (lambda x: x * b, (a,), {}),
        "closure alone": (lambda: (a + 1, b + 1), (), {}),
        "unused": (lambda x, y: x * 2, (a, b), {}),
        "given back": (lambda x: (x * 2, b), (a,), {}),
        "in an object": (lambda o, x: o.held * x, (Holder(b), a), {}),
        "a part": (lambda x: x * b[0], (a,), {}),
        "written": (lambda x: b.add_(x), (a,), {}),
        "in a list of an operation": (lambda x: torch.cat([x, b]), (a,), {}),
    }


@dataclasses.dataclass
class Holder:
    held: object


WAYS = list(both(None, None))


@pytest.mark.parametrize("way", WAYS)
def test_a_plan_of_two_owners_is_refused_in_the_words_of_an_operation(owners, way):
    a, b = at(owners[0], 10.0), at(owners[1], 8.0)
    function, args, kwargs = both(a, b)[way]
    planned = lab.plan(function)
    for _ in range(2):
        with pytest.raises(errors.OtherOwnerError, match=r"values at (alice and at bob|bob and at alice)"):
            planned(*args, **kwargs)
    assert (a * 1).get().item() == 10
    assert (b * 1).get().item() == 8


@pytest.mark.parametrize("way", WAYS)
def test_a_recorded_plan_that_is_called_with_another_owner_records_there_or_is_refused(owners, way):
    alice, bob = owners
    function, args, kwargs = both(at(alice, 10.0), at(alice, 8.0))[way]
    planned = lab.plan(function)
    for _ in range(2):
        planned(*args, **kwargs)
    there = {"closure", "closure alone", "given back", "a part", "written", "in a list of an operation"}  # stay at alice
    _, args, kwargs = both(at(bob, 3.0), at(bob, 4.0))[way]
    if way == "closure alone":
        return
    if way in there:
        with pytest.raises(errors.OtherOwnerError):
            planned(*args, **kwargs)
    else:
        assert planned(*args, **kwargs).get().item() == (6.0 if way == "unused" else 12.0)


def test_a_gradient_at_another_owner_is_refused(owners):
    alice, bob = owners
    weight = at(alice, 2.0).requires_grad_(True)

    @lab.plan
    def step(x):
        (weight * x).sum().backward()

    weight.grad = at(bob, 5.0)
    with pytest.raises(errors.OtherOwnerError):
        step(at(alice, 3.0))
    weight.grad = None
    x = at(alice, 2.0).requires_grad_(True)
    add = lab.plan(lambda v: (v * 3).sum().backward())
    add(x)
    x.grad = at(bob, 1.0)
    with pytest.raises(errors.OtherOwnerError):
        add(x)


def test_a_closure_that_names_another_owners_pointer_later_is_refused(owners):
    alice, bob = owners
    first = factor = at(alice, 2.0)  # which stays, also when the name goes
    net = lab.send(nn.Linear(1, 1), alice)
    kept = torch.optim.SGD(net.parameters(), 0.1)
    scaled, run = lab.plan(lambda x: x * factor), lab.plan(lambda x: net(x))
    x = at(alice, 5.0)
    assert scaled(x).get().item() == 10
    run(x)
    factor = at(bob, 3.0)
    net.get()
    lab.send(net, bob)
    for planned in (scaled, run):
        with pytest.raises(errors.OtherOwnerError):
            planned(x)
    factor = first * 2
    assert scaled(x).get().item() == 20
    assert kept.param_groups


def test_a_plan_sends_no_number_of_another_tape(owners):
    """The one place through which all inputs go, whatever becomes of what comes before."""
    alice, bob = owners
    planned = lab.plan(lambda x: x + 1)
    planned(at(alice, 1.0))
    value = at(bob, 1.0).current
    with pytest.raises(errors.OtherOwnerError, match=r"one plan reads values at alice and at bob"):
        alice.tape.run(planned.plan, [value])
    with pytest.raises(errors.OtherOwnerError, match=r"alice.*bob"):
        record.run(alice.tape, record.how(torch.ops.aten.neg.default), (at(bob, 1.0),), {})


def test_pointers_of_a_session_that_is_lost_do_not_get_into_a_plan_of_the_new_one():
    (carol,) = lab.virtual_owners("carol")
    old = at(carol, 1.0)
    planned = lab.plan(lambda x: x * old)
    planned(old)
    carol.tape._die(errors.StalePointerError("lost"))
    new = at(carol, 2.0)
    for call in (lambda: planned(new), lambda: lab.plan(lambda a, b: a * b)(new, old), lambda: planned(old)):
        with pytest.raises((errors.OtherOwnerError, errors.StalePointerError)):
            call()
    carol.close()


def test_a_block_that_computes_at_two_owners_runs_and_is_no_plan(owners):
    alice, bob = owners
    with lab.plan() as p:
        a, b = at(alice, 1.0) + 1, at(bob, 2.0) + 2
    assert (a.get().item(), b.get().item()) == (2, 4)
    for ask in (lambda: p.plan, p.show):
        with pytest.raises(errors.OtherOwnerError, match=r"alice and at bob"):
            ask()


# Threads


def aside(work):
    """Do work in another thread, and wait for it."""
    found = []

    def noted():
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=noted)
    thread.start()
    thread.join(60)
    (result,) = found
    if isinstance(result, Exception):
        raise result
    return result


def test_a_recording_takes_nothing_that_another_thread_does(owners):
    x, weight = at(owners[0], 1.0, 2.0), at(owners[0], 3.0, 4.0)
    view, found = weight[:1], []

    @lab.plan
    def step(v):
        weight.mul_(2)
        inside = v + view  # what another thread uses just now is met, and was written to
        found.append(aside(lambda: (x * 5, weight * 7, view * 7, lab.plan(lambda w: w - 1)(weight))))
        return inside

    made = step(x[:1])
    assert [op.op for op in step.plan.nodes if "sub" in op.op or 7 in op.args or 5 in op.args] == []
    assert [t.get().tolist() for t in found[0]] == [[5.0, 10.0], [21.0, 28.0], [21.0], [2.0, 3.0]]
    assert made.get().tolist() == [7.0]
    assert weight.get().tolist() == [6.0, 8.0]


def test_two_threads_record_at_once(owners):
    weight = at(owners[0], 10.0)
    meeting = threading.Barrier(2)

    def task(factor):
        @lab.plan
        def step(v):
            meeting.wait(60)
            out = v * weight
            meeting.wait(60)
            out = out + factor
            meeting.wait(60)
            return out

        return step(at(owners[0], factor)).get().item(), len(step.plan.nodes)

    found = []
    threads = [threading.Thread(target=lambda f=f: found.append(task(f))) for f in (2.0, 3.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [(22.0, 2), (33.0, 2)]


def test_a_block_notes_nothing_that_another_thread_does(owners):
    alice, bob = owners
    x, y = at(alice, 1.0), at(bob, 1.0)
    with lab.plan() as p:
        aside(lambda: (x * 2, y * 2))
        made = x + 1
        aside(lambda: x * 3)
    assert made.get().item() == 2
    assert [n.op for n in p.plan.nodes] == ["aten.add.Tensor"]


def test_coroutines_of_one_thread_note_each_their_own(owners):
    x = at(owners[0], 1.0)

    async def task(operation, here, there):
        made = []
        with lab.plan() as p:
            for _ in range(3):
                await here.acquire()
                made.append(operation(x))
                there.release()
        return [n.op for n in p.plan.nodes]

    async def main():
        a, b = asyncio.Semaphore(1), asyncio.Semaphore(0)
        found = await asyncio.gather(task(torch.exp, a, b), task(torch.sin, b, a))
        with lab.plan() as p:
            gate = asyncio.Event()
            later = asyncio.create_task(after(gate))  # it copies the context, and outlives the block
            doubled = await asyncio.to_thread(lambda: x * 2)  # so does this thread
        gate.set()
        made = [doubled, await later]
        return (*found, len(p.plan.nodes), [t.get().item() for t in made])

    async def after(gate):
        await gate.wait()
        return x * 3

    assert asyncio.run(main()) == (["aten.exp.default"] * 3, ["aten.sin.default"] * 3, 0, [2, 3])


def test_a_task_that_began_in_a_recording_is_no_part_of_it(owners):
    x = at(owners[0], 1.0)

    async def main():
        tasks = []

        async def later():
            return (x * 4).get().item()

        @lab.plan
        def step(v):
            tasks.append(asyncio.get_running_loop().create_task(later()))
            return v * x

        out = step(x)
        return out.get().item(), await tasks[0], len(step.plan.nodes)

    assert asyncio.run(main()) == (1.0, 4.0, 1)


def test_gradients_are_recorded_in_a_plan_and_in_a_block(owners):
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    twin, x = lab.send(nn.Linear(3, 1), owners[0]), torch.randn(4, 3)
    with torch.no_grad():
        for p, q in zip(twin.parameters(), net.parameters(), strict=True):
            p.copy_(lab.send(q.detach(), owners[0]))
    px = lab.send(x, owners[0])

    def step(model, given):
        model.zero_grad()
        model(given).square().sum().backward()

    step(net, x)
    planned = lab.plan(lambda v: step(twin, v))
    for _ in range(3):
        planned(px)
        assert torch.allclose(twin.weight.grad.get(), net.weight.grad, atol=1e-5)
    with lab.plan() as p:
        step(twin, px)
    assert torch.allclose(twin.weight.grad.get(), net.weight.grad, atol=1e-5)
    assert len(p.plan.nodes) == len(planned.plan.nodes) > 5


# What a recorded function saw


def test_a_recording_changes_nothing_that_it_meets(owners):
    weight = at(owners[0], 1.0).requires_grad_(True)
    value, grad = weight._value, at(owners[0], 7.0)
    weight.grad = grad

    @lab.plan
    def broken(x):
        weight.grad = None
        (weight * x).sum().backward()
        assert weight._value is value
        with pytest.raises(errors.UsageError, match="no values yet"):
            weight.get()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        broken(at(owners[0], 2.0))
    assert weight.grad is None or weight.grad is grad
    assert weight.get().item() == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda v: torch.tensor(v),
        lambda v: np.array([v], np.float32),
        lambda v: Holder(torch.tensor(v)),
        lambda v: [torch.tensor(v)],
        lambda v: lambda: v,
        lambda v: np.float32(v),
    ],
    ids=["tensor", "array", "object", "list", "function", "number of numpy"],
)
def test_what_is_given_beside_pointers_is_read_at_each_call(owners, make):
    @lab.plan
    def scaled(x, other):
        value = other() if callable(other) else other[0] if isinstance(other, list) else getattr(other, "held", other)
        return x * (torch.from_numpy(value) if isinstance(value, np.ndarray) else value)

    x = at(owners[0], 1.0)
    for value in (2.0, 3.0, 4.0, 4.0):
        assert scaled(x, make(value)).get().item() == value
    changing = torch.tensor(1.0)
    for value in (1.0, 2.0, 4.0):
        assert scaled(x, changing).get().item() == value
        changing.mul_(2)


def test_a_number_is_told_from_another_of_its_size_and_a_type_from_another(owners):
    x, powered, typed = at(owners[0], 2), lab.plan(lambda v, n: v * n), lab.plan(lambda v, t: v.to(t))
    assert [powered(x, n).dtype for n in (1, 1.0, True)] == [torch.int64, torch.float32, torch.int64]
    assert [typed(x, t).dtype for t in (torch.float64, torch.int32)] == [torch.float64, torch.int32]


def test_what_names_stand_for_is_read_at_each_call(owners):
    alice, _ = owners
    x, factor, rate = at(alice, 1.0), at(alice, 2.0), torch.tensor(2.0)
    net = lab.send(nn.Dropout(1.0), alice)
    pointers, local, derived, mode = (
        lab.plan(f) for f in (lambda v: v * factor, lambda v: v * rate, lambda v: v * (rate + 1), lambda v: net(v))
    )
    assert [f(x).get().item() for f in (pointers, local, derived, mode)] == [2, 2, 3, 0]
    factor, rate = at(alice, 3.0), torch.tensor(5.0)
    net.eval()
    assert [f(x).get().item() for f in (pointers, local, derived, mode)] == [3, 5, 6, 1]
    rate.add_(1)
    assert [f(x).get().item() for f in (local, derived)] == [6, 7]


def test_a_plan_in_a_plan_is_a_part_of_it(owners):
    factor = at(owners[0], 10.0)
    inner = lab.plan(lambda v: v * factor)
    outer = lab.plan(lambda v: inner(v) + inner(factor))
    assert [outer(at(owners[0], v)).get().item() for v in (1.0, 2.0, 3.0)] == [110.0, 120.0, 130.0]


def test_a_view_in_a_plan_writes_into_what_it_is_a_view_of(owners):
    base, x = at(owners[0], 0.0, 0.0), at(owners[0], 1.0)

    @lab.plan
    def add(v):
        base[:1].add_(v)
        return base + v

    assert [add(x).get().tolist() for _ in range(3)] == [[2.0, 1.0], [3.0, 1.0], [4.0, 1.0]]
    assert base.get().tolist() == [3.0, 0.0]


def test_what_is_there_twice_and_written_to_is_refused(owners):
    total, weight = at(owners[0], 1.0), at(owners[0], 1.0).requires_grad_(True)
    add = lab.plan(lambda v: (total.add_(1), v * 2)[1])
    with pytest.raises(errors.UsageError, match="shares memory"):
        add(total)
    with pytest.raises(errors.UsageError, match="twice"):
        lab.plan(lambda v, w: (v * w).sum().backward())(weight, weight)
    assert total.get().item() == 1


def test_gradients_of_arguments_add_up_and_belong_to_the_argument_of_the_call(owners):
    a, b = (at(owners[0], 1.0).requires_grad_(True) for _ in range(2))
    step = lab.plan(lambda v: (v * 3).sum().backward())
    for _ in range(3):
        step(a)
    step(b)
    assert (a.grad.get().item(), b.grad.get().item()) == (9, 3)


def test_a_gradient_that_was_put_in_place_of_another_is_added_to(owners):
    weight, x = at(owners[0], 1.0).requires_grad_(True), at(owners[0], 3.0)
    step = lab.plan(lambda v: (v * weight).sum().backward())
    for _ in range(4):
        step(x)
    assert weight.grad.get().item() == 12
    weight.grad = None
    step(x)
    assert weight.grad.get().item() == 3


def test_functions_that_run_after_their_call_are_no_plans():
    async def later(x):
        return x

    def some(x):
        yield x

    for function in (later, some):
        with pytest.raises(errors.UsageError, match="plain function"):
            lab.plan(function)


def test_a_pointer_shows_itself_while_it_is_recorded(owners):
    seen = []

    @lab.plan
    def step(x):
        seen.extend([f"{x}", x._repr_html_()])
        return x * 2

    step(at(owners[0], 1.0))
    assert all("in a recording" in text for text in seen) and len(seen) == 2


class Slotted:
    __slots__ = ("v",)


class Plain:
    shared = None

    @property
    def computed(self):
        return vars(self)["v"]


@pytest.mark.parametrize(
    "place",
    "attribute slot deque inside UserDict ChainMap UserList proxy items array property class library".split(),
)
def test_what_objects_of_the_user_hold_is_read_at_each_call(owners, place):
    alice, bob = owners
    mine, other, theirs = (
        lab.send(torch.arange(4.0), alice),
        lab.send(torch.arange(4.0) + 50, alice),
        lab.send(torch.ones(4), bob),
    )
    held, outer, box, known = Slotted(), Plain(), deque([None]), {"v": None}
    outer.inner = types.SimpleNamespace()
    user, users, chain, array = UserDict(), UserList([None]), ChainMap({"v": None}), np.array([None], object)
    proxy, pairs, library = types.MappingProxyType(known), known.items(), unittest.mock.Mock()

    def put(value):
        held.v, outer.v, outer.inner.v, box[0] = value, value, {"all": [value]}, value
        user["v"], users[0], chain["v"], array[0], known["v"], Plain.shared, library.v = (value,) * 7

    body = {
        "attribute": lambda x: x + outer.v,
        "slot": lambda x: x + held.v,
        "deque": lambda x: x + box[0],
        "inside": lambda x: x + outer.inner.v["all"][0],
        "UserDict": lambda x: x + user["v"],
        "ChainMap": lambda x: x + chain["v"],
        "UserList": lambda x: x + users[0],
        "proxy": lambda x: x + proxy["v"],
        "items": lambda x: x + dict(pairs)["v"],
        "array": lambda x: x + array[0],
        "property": lambda x: x + outer.computed,
        "class": lambda x: x + outer.shared,
        "library": lambda x: x + library.v,
    }[place]
    plan = lab.plan(body)
    put(mine)
    assert plan(mine).get().tolist() == [0, 2, 4, 6]
    put(other)
    assert plan(mine).get().tolist() == [50, 52, 54, 56]
    put(theirs)
    with pytest.raises(errors.OtherOwnerError):
        plan(mine)
