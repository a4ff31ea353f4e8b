"""What tests of requests share: a cell to file, and waits for events of the desk, not for a time."""

from __future__ import annotations

import contextlib
import threading
import time

import syft_lab as lab
from syft_lab.cell import Cell


def cell(code="m = patients.age.mean()", returns=("m",), use=(("patients", 1),), **more):
    """A cell on the table that the fixtures publish."""
    return Cell(code, tuple(use), tuple(returns), more.pop("params", {}), more.pop("reason", "to know"))


def until(owner, number, *states, seconds=60):
    """The request, once it is in one of these states; "checked" is when the looks at it are over."""
    request, changed = owner.requests.number(number), threading.Event()

    def hear(_):
        changed.set()

    owner._desk.on_change.append(hear)
    end = time.monotonic() + seconds
    try:
        while request.state not in states and not ("checked" in states and request.checked):
            assert time.monotonic() < end, request
            changed.wait(0.5)
            changed.clear()
    finally:
        owner._desk.on_change.remove(hear)
    return request


def approved(owner, number, seconds=60):
    """The request, approved and run."""
    request = owner.requests.number(number)
    request.approve(digest=request.digest)
    return until(owner, number, "review", "failed", seconds=seconds)


@contextlib.contextmanager
def person(owner, name, role, **more):
    """Somebody enrolled in a role, connected."""
    owner.invite(name, role=role, **more)
    with lab.connect(f"{name}.syft", alias=f"{name}s") as session:
        yield session
