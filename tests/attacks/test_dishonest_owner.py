"""An owner who hands out other values, another cell or another receipt than it signed is caught by the analyst's side."""

import dataclasses
import threading

import pytest

from syft_lab import canonical, errors, values
from syft_lab.cell import Cell
from syft_lab.kernel.executor import levels

pytestmark = [
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]


def released(owner, session, code="m = patients.age.mean()"):
    asked = session.file(Cell(code, (("patients", 1),), ("m",), {}))
    request = owner.requests.number(asked.number).wait(60)
    request.approve(digest=request.digest)
    request.wait(60)
    return asked, request


def test_the_honest_owner_is_believed(owner, session):
    asked, request = released(owner, session)
    request.release()
    assert asked.results["m"].get(20) == pytest.approx(owner.requests[0].result["m"])


def test_other_values_than_were_signed_are_refused(owner, session, monkeypatch):
    asked, request = released(owner, session)
    honest = owner._desk.released
    monkeypatch.setattr(owner._desk, "released", lambda *a: (*honest(*a)[:2], values.encode({"m": 1.0})))
    request.release()
    with pytest.raises(errors.VerificationError, match="not those that the receipt is about"):
        asked.results["m"].get(20)


def test_the_receipt_of_another_request_is_refused(owner, session, monkeypatch):
    first, request = released(owner, session)
    request.release()
    first.results["m"].get(20)
    asked, second = released(owner, session, "m = patients.age.max()")
    honest = owner._desk.released
    monkeypatch.setattr(owner._desk, "released", lambda analyst, _: honest(analyst, first.id))
    second.release()
    with pytest.raises(errors.VerificationError, match="another request"):
        asked.results["m"].get(20)


def test_another_cell_than_was_filed_is_noticed_at_once(owner, session, monkeypatch):
    honest = owner._desk.public

    def changed(row):
        public = honest(row)
        return {**public, "cell": {**public["cell"], "code": "m = 2"}}

    monkeypatch.setattr(owner._desk, "public", changed)
    with pytest.raises(errors.VerificationError, match="another cell"):
        session.file(Cell("m = 1", (("patients", 1),), ("m",), {}))


@pytest.mark.parametrize("said", [{}, {"request": 1}, [], None, {"requests": [{}], "at": 1}, {"requests": 3, "at": "x"}])
def test_nonsense_about_requests_is_one_clear_error(owner, session, monkeypatch, said):
    monkeypatch.setattr(owner._desk, "public", lambda row: said)
    with pytest.raises(errors.LabError, match="malformed|tell the owner"):
        session.file(Cell("m = 1", (("patients", 1),), ("m",), {}))


def test_a_result_that_is_nonsense_fails_and_does_not_hang(owner, session, monkeypatch):
    asked, request = released(owner, session)
    honest, done = owner._desk.released, threading.Event()

    def nonsense(*arguments):
        entry, *_ = honest(*arguments)
        done.set()
        body = {**entry.body, "cell": 7}
        return dataclasses.replace(entry, data=canonical.dumps(body)), b"salt", b"x"

    monkeypatch.setattr(owner._desk, "released", nonsense)
    request.release()
    with pytest.raises(errors.LabError):
        asked.results["m"].get(20)
    assert done.is_set()
