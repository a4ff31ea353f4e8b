"""A tape whose owner is a runner in this process: pointers without a session, for tests of what records and what runs."""

from __future__ import annotations

from typing import ClassVar

import torch

from syft_lab import plans
from syft_lab.errors import PrivateValueError
from syft_lab.kernel.executor import trial
from syft_lab.kernel.executor.runner import Quota, Runner
from syft_lab.labels import PUBLIC
from syft_lab.plans import Plan
from syft_lab.record import Recorded, Tape
from syft_lab.spec import Spec, as_bytes


class Tried(Runner):
    """A runner beside which what labels rest on is tried in this process."""

    verdicts: ClassVar[dict[bytes, str]] = {}
    seed: int | None = None  # None: as owners do, and each claim once

    def prove(self, number):
        """Raise PrivateValueError if what a value rests on does not stand its trial."""
        for claim in self.owed(number):
            why = trial.tried(claim, self.seed) if self.seed is not None else self.verdicts.get(claim)
            if why is None:
                why = self.verdicts[claim] = trial.tried(claim)
            if why:
                raise PrivateValueError(f"did not stand a trial: {why}")
            self.tried([claim])

    def aggregate(self, number):
        self.prove(number)
        return super().aggregate(number)

    def fetch(self, number, start, length, private=False):
        if not private:
            self.prove(number)
        return super().fetch(number, start, length, private)


class LocalTape(Tape):
    keep = False  # whether plans are run as those that come again

    def __init__(self, quota: Quota | None = None) -> None:
        super().__init__(Recorded)
        self.runner = Tried("cpu", quota)
        self.last: Plan | None = None

    def put(self, tensor):
        value, data = self.new(), as_bytes(tensor).numpy().tobytes()
        self.runner.put(value.number, str(tensor.dtype)[6:], list(tensor.shape), 0, data)
        return value

    def send(self, tensor):
        made = self.make(Spec.of(tensor.detach().contiguous(), PUBLIC, 0), self.put(tensor))
        return made.requires_grad_(True) if tensor.requires_grad else made

    def asset(self, tensor, label):
        value = self.new()
        self.runner.load(value.number, tensor, label.to_json(), label.sources[0])
        return self.make(Spec.of(tensor, label, 0), value)

    def flush(self):
        nodes, self.nodes = self.nodes, []
        gone = set(self.freed)
        self.freed.clear()
        pending = {o for n in nodes for o in n.outs}
        wanted = [o for o in sorted(pending) if o not in gone]
        live = plans.alive(nodes, wanted)
        inputs = sorted({n for node in live for n in plans.refs(node)} - pending)
        self.last = Plan.of(live, inputs, wanted)
        return self.run(self.last, inputs, wanted, sorted(gone - pending))

    def run(self, plan, inputs, outputs, free=()):
        run = {"inputs": inputs, "outputs": outputs, "free": free, "seeds": list(plan.seeds)}
        return self.runner.run(plans.parse(plan.canonical), run, plan.digest, self.keep)

    def held(self, pointer):
        """What the owner holds of a pointer."""
        number = pointer.current.number
        self.flush()
        return self.runner.space.held[number]

    def get(self, pointer):
        held = self.held(pointer)
        assert held.tensor is not None, held.why
        assert tuple(held.tensor.shape) == tuple(pointer.shape)
        assert held.tensor.dtype == pointer.dtype
        return held.tensor.clone()


def same(a, b) -> bool:
    """Equal to the last bit, NaN included."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(torch.nan_to_num(a, nan=1.25) if a.dtype.is_floating_point else a,
                                                                      torch.nan_to_num(b, nan=1.25) if b.dtype.is_floating_point else b)  # fmt: skip
