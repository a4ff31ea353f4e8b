"""The runner: plans that come again give what they would give one operation at a time, and are told in the same words."""

import gc

import pytest
import torch
import torch.nn.functional as F

from syft_lab import errors, labels
from syft_lab.kernel.executor import runner as runners
from tests.tensors import LocalTape


def work(tape, x, w):
    y = torch.relu(x @ w)
    a, b = y.split(2, dim=1)
    z = F.dropout(a, 0.5) + b * 2.0 + torch.rand_like(b)
    return y, z, z.sum(1).exp()


def both():
    """The same computation, as a plan that comes once and as one that comes again: tapes and what they hold."""
    made = []
    for keep in (False, True):
        torch.manual_seed(3)
        tape = LocalTape()
        tape.keep = keep
        x, w = tape.send(torch.randn(5, 3)), tape.asset(torch.randn(3, 4), labels.rows("d v1", 1))
        made.append((tape, work(tape, x, w)))
    return made


def test_a_plan_that_comes_again_gives_the_same_values_digests_and_words():
    (one, these), (other, those) = both()
    for a, b in zip(these, those, strict=True):
        first, second = one.held(a), other.held(b)
        assert torch.equal(first.tensor, second.tensor)
        assert first.spec.label == second.spec.label
        told, again = (t.runner.describe(p.current.number) for t, p in ((one, a), (other, b)))
        assert told == again
        assert "seed=" in told["text"] or b is those[0]


def test_steps_of_a_long_past_are_forgotten_but_for_digests_that_differ(monkeypatch):
    monkeypatch.setattr(runners, "MAX_HISTORY", 300)
    tape = LocalTape()
    tape.keep = True
    x = tape.send(torch.ones(2))
    seen = set()
    for i in range(200):
        y, z = x + 1.0, x * 2.0
        x = y + z + float(i)
        tape.held(x)
        seen |= {tape.runner.describe(p.current.number)["digest"] for p in (x, y, z)} if i % 10 == 0 else set()
        if i == 5:
            early = y  # is held while its past is forgotten
    assert len(seen) == 60
    gc.collect()
    assert len(tape.runner.space.history) < 150
    assert "earlier steps" in tape.runner.describe(early.current.number)["text"]
    assert "earlier steps" in tape.runner.describe(x.current.number)["text"]


def test_values_whose_past_was_forgotten_before_anybody_asked_have_digests_of_their_own(monkeypatch):
    monkeypatch.setattr(runners, "MAX_HISTORY", 20)
    tape = LocalTape()
    tape.keep = True
    x = tape.send(torch.ones(2))
    pairs = []
    for _ in range(40):
        pairs.append((x + 1.0, x * 2.0))
        tape.held(pairs[-1][1])
        x = pairs[-1][0]
    digests = {tape.runner.describe(p.current.number)["digest"] for pair in pairs for p in pair}
    assert len(digests) == 80


@pytest.mark.parametrize("keep", [False, True])
def test_the_same_run_is_found_while_its_results_are_held_and_only_then(keep):
    tape = LocalTape()
    tape.keep = keep
    x = tape.send(torch.ones(3))
    first = x.exp().sum()
    tape.held(first)
    before = tape.runner.space.ran
    second = x.exp().sum()
    assert torch.equal(tape.held(second).tensor, tape.held(first).tensor)
    again = tape.runner.space.ran - before
    assert again in ((0, 2) if keep else (0, 1, 2))
    del first, second
    gc.collect()
    tape.flush()
    assert torch.equal(tape.held(x.exp().sum()).tensor, torch.ones(3).exp().sum())


def test_a_number_that_names_another_value_by_now_is_not_taken_for_a_run():
    """Our own client never uses a number again; somebody else's may."""
    tape = LocalTape()
    x = tape.send(torch.ones(3))
    y = x.exp()
    number = y.current.number
    tape.flush()
    plan, inputs = tape.last, [x.current.number]
    tape.runner.free([number])
    tape.runner.put(number, "float32", [1], 0, torch.zeros(1).numpy().tobytes())
    tape.run(plan, inputs, [number + 1000])
    assert torch.equal(tape.runner.space.held[number + 1000].tensor, torch.ones(3).exp())


@pytest.mark.parametrize("keep", [False, True])
def test_what_fails_on_private_values_fails_in_silence_and_on_public_ones_in_words(keep):
    tape = LocalTape()
    tape.keep = keep
    private = tape.asset(torch.tensor([0, 7]), labels.rows("d v1", 1))
    table = tape.send(torch.arange(3.0))
    lost = table[private]
    fine = table + 1
    number = lost.current.number
    tape.flush()
    assert bool(tape.runner.space.held[number].tensor.isnan().all())
    assert "out of" in tape.runner.space.held[number].why or "index" in tape.runner.space.held[number].why
    assert torch.equal(tape.get(fine), torch.arange(3.0) + 1)
    after = tape.held(lost * 2)  # what comes of it is lost too
    assert after.why
    with pytest.raises(errors.FailedError, match="index"):  # the owner, who looks at it
        tape.runner.fetch(number, 0, 8, private=True)
    public = table[tape.send(torch.tensor([0, 7]))]
    number = public.current.number
    tape.flush()
    with pytest.raises(errors.FailedError, match="index"):
        tape.runner.fetch(number, 0, 8)


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_without_the_seeds_of_its_plan_is_refused(keep):
    tape = LocalTape()
    tape.keep = keep
    x = tape.send(torch.ones(3))
    y = torch.rand_like(x)
    number = y.current.number
    tape.flush()
    plan = tape.last
    object.__setattr__(plan, "seeds", ())
    assert "brings a seed" in tape.run(plan, [x.current.number], [number + 1000])["lost"]


@pytest.mark.parametrize("keep", [False, True])
def test_a_plan_that_takes_too_long_is_told_so_once(keep):
    tape = LocalTape(runners.Quota(seconds=1e-6))
    tape.keep = keep
    y = tape.send(torch.ones(3)) * 2.0
    begun = []
    begin = tape.runner._begin
    tape.runner._begin = lambda plan: begun.append(plan) or begin(plan)
    number = y.current.number
    assert "takes longer" in tape.flush()["lost"]
    assert len(begun) == 1
    with pytest.raises(errors.FailedError, match="split it"):
        tape.runner.fetch(number, 0, 8)


def test_a_sum_for_release_has_its_companion_whichever_way_it_is_run():
    for keep in (False, True):
        tape = LocalTape()
        tape.keep = keep
        x = tape.asset(torch.rand(10, 2), labels.rows("d v1", 1))
        for _ in range(2):
            mean = x.clamp(0, 1).mean(0)
            assert tape.held(mean).grid is not None
            assert tape.runner.aggregate(mean.current.number)["l1"] > 0


def test_bytes_that_came_are_hashed_when_their_value_is_told_or_gone():
    tape = LocalTape()
    a, b = tape.send(torch.ones(3)), tape.send(torch.ones(3))
    c = tape.send(torch.zeros(3))
    told = [tape.runner.describe(p.current.number)["digest"] for p in (a, b, c)]
    assert told[0] == told[1] != told[2]
    d = tape.send(torch.ones(3))
    e = d * 3
    tape.held(e)
    del d
    gc.collect()
    tape.flush()
    left = tape.runner.space.held[e.current.number].made.past[0]
    assert left._content is None
    assert left.digest.hex() == told[0]


def test_parts_of_a_tensor_that_are_in_place_are_not_copied_and_others_are_refused():
    tape = LocalTape()
    runner, whole = tape.runner, torch.arange(10, dtype=torch.uint8)
    data = whole.numpy().tobytes()
    place = runner.place(1, "uint8", [10], 0, 6)
    place[:] = data[:6]
    runner.put(1, "uint8", [10], 0, place)
    assert runner.place(1, "uint8", [10], 0, 6) is not place  # from the start again: another tensor
    runner.put(1, "uint8", [10], 0, data[:6])
    assert runner.place(1, "uint8", [10], 3, 4) is None
    assert runner.place(1, "uint8", [10], 6, 5) is None
    assert runner.place(1, "uint8", [11], 6, 4) is None
    assert runner.place(2, "uint8", [10], 6, 4) is None
    assert runner.place(2, "complex32", [10], 0, 4) is None
    assert runner.place(2, "uint8", [1 << 50], 0, 4) is None
    with pytest.raises(errors.WireError):
        runner.put(1, "uint8", [10], 3, data[3:6])
    last = runner.place(1, "uint8", [10], 6, 4)
    last[:] = data[6:]
    runner.put(1, "uint8", [10], 6, last)
    assert torch.equal(runner.space.held[1].tensor, whole)
