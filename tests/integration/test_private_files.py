"""A session of an owner and an analyst under a umask that takes nothing away: no file and no folder of it is open to others."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest

import syft_lab as lab
from syft_lab.cell import Cell
from syft_lab.kernel.executor import levels

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX"),
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]


@pytest.fixture(autouse=True)
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(place):
    return {str(p.relative_to(place)) for p in place.rglob("*") if stat.S_IMODE(p.lstat().st_mode) & 0o077}


def test_nothing_is_open_to_others_under_any_umask(home, owner, session):
    owner.publish(np.ones((8, 2)), "matrix", privacy_unit="row", rows_public=True, bounds=(0, 1),
                  budget=lab.Budget(1.0))  # fmt: skip
    owner.notify("http://127.0.0.1:9/none", secret="a token")
    cell = Cell("m = patients[patients.age > 60].age.mean()", (("patients", 1),), ("m",), {}, "why")
    owner.policy.allow("code", analyst="alice", digest=session.file(cell).digest, review=False)
    session.file(cell).results["m"].get(60)
    answer = session["patients"].age.mean().release(epsilon=0.3)
    answer.get(20)
    answer.receipt.save(home / "receipt.json")
    owner.audit.export(home / "study.jsonl")
    owner.audit.report(home / "report.md")
    assert open_to_others(home) == set()
    assert len(list(Path(home).rglob("*"))) > 20
