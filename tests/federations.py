"""Three owners in a federation, hosted by this process, with their parties in children of their own."""

import contextlib
import os
import time

import torch

import syft_lab as lab
from tests.devices import GPU

NAMES = ("hospital-a", "hospital-b", "hospital-c")
AGES, INCOME = torch.rand(60, 4), torch.rand(60, 4)


class Trio:
    """``owners`` and the analyst's ``sessions`` at them. ``accept`` does what the owners do in their inboxes."""

    def __init__(self, folder):
        self.folder = folder
        self.owners = [lab.Owner.start(n, device=d) for n, d in zip(NAMES, (GPU or "cpu", "cpu", GPU or "cpu"), strict=True)]
        for owner, tensor, name in zip(self.owners, (AGES, INCOME), ("ages", "income"), strict=False):
            owner.publish(tensor, name, bounds=(0, 1), privacy_unit="row", rows_public=True, budget=lab.Budget(3.0))
            owner.publish(tensor, "late", population=name, bounds=(0, 1), privacy_unit="row", rows_public=True)
            owner.invite("alice", budgets={name: 1.0}, path=folder / f"{owner.name}.syft")
            owner.withdraw("late")  # open to alice by name, once it is published again
        self.owners[2].invite("alice", path=folder / "hospital-c.syft")
        self.sessions = [lab.connect(folder / f"{n}.syft") for n in NAMES]

    def federation(self, purpose="study 12", **terms):
        """A federation that all owners accept."""
        found = lab.federation(*self.sessions, purpose=purpose, **terms)
        self.accept(found)
        return found.wait(20)

    def accept(self, federation):
        for owner, request in zip(self.owners, federation.requests.values(), strict=True):
            if request.state in ("filed", "seen"):
                owner.requests.number(request.number).approve(digest=federation.terms.digest)

    def release(self, result):
        """Every owner lets its part of a value go."""
        for owner, request in zip(self.owners, result.request.requests, strict=True):
            asked = owner.requests.number(request.number)
            asked.approve(digest=asked.digest).wait(20)

    def opened(self, tensor):
        """A value of owners' data, once all have let it go."""
        result = tensor.request(reason="a test")
        self.release(result)
        return result.get(20)

    def parties(self, federation):
        """The children that are parties in a federation now, by owner."""
        return {
            owner.name: seat._host for owner in self.owners for _, seat in owner._tensors.seats()
            if seat.federation == federation.id and seat._host
        }  # fmt: skip

    def gone(self, federation, pids, seconds=10):
        """Wait until the children with these pids are no more."""
        end = time.monotonic() + seconds
        while self.parties(federation) or any(os.path.exists(f"/proc/{pid}") for pid in pids):
            assert time.monotonic() < end, "a party is still there"
            time.sleep(0.02)

    def close(self):
        for each in (*self.sessions, *self.owners):
            with contextlib.suppress(lab.errors.LabError):
                each.close() if isinstance(each, lab.Session) else each.stop()
