"""Words of one side with every character that deceives, in all that the other side's terminal and notebook show of them."""

import re
import subprocess
import sys

import pandas as pd
import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.cell import Cell
from syft_lab.kernel.executor import levels
from syft_lab.kernel.terminal import ask, describe
from syft_lab.printable import printable

# What messages may carry at all: no surrogates, which are no UTF-8.
HOSTILE = "ok\x1b[2J\x1b]0;t\x07\x9b31m\r\u202eevil\u2066\u200b\u2028\u3164\u061c\x7f\x00\ufeff fine"
LINES = "all well\nRequest 7: approved"


@pytest.fixture
def texts():
    """Collects what is shown; each is looked at."""
    seen = []

    def show(thing):
        found = [str(thing), repr(thing), f"{thing}"]
        found += [thing._repr_html_()] if hasattr(thing, "_repr_html_") else []
        found += list(thing._render_traceback_()) if isinstance(thing, errors.LabError) else []
        seen.extend(found)
        return "\n".join(found)

    yield show
    assert seen
    for text in seen:
        assert printable(text, lines=True) == text, f"{text!r} deceives"


def test_words_of_an_owner_deceive_no_analyst(home, patients, texts):
    owner = lab.Owner.start("hospital-a")
    try:
        wards = [f"{HOSTILE} {i}" for i in range(2)]
        table = pd.DataFrame({"age": [50.0, 60.0] * 50, "ward": wards * 50, "id": range(100)})
        owner.publish(table, "patients", description=HOSTILE, population="clinic", privacy_unit="id", bounds={"age": (0, 110)},
                      categories={"ward": wards}, budget=lab.Budget(3.0, 1e-6))  # fmt: skip
        owner.invite("alice", budgets={"clinic": 1.0})
        owner.policy.allow("dp", dataset="patients", epsilon_per_query=0.5)
        with lab.connect("alice.syft") as session:
            frame = session["patients"]
            for thing in (session, session.budget(), frame, frame["ward"], frame.groupby("ward")):
                texts(thing)
            counts = frame.groupby("ward").size().release(epsilon=0.4)
            counts.get(20)
            assert "evil" in texts(counts)
            texts(counts.receipt)
            texts(frame[frame.ward == wards[0]].age.mean())
            with pytest.raises(errors.LabError) as caught:
                frame[HOSTILE]
            texts(caught.value)
            asked = session.file(Cell("m = 1", (("patients", 1),), ("m",), {}, "why"))
            owner.requests[0].deny(f"{HOSTILE} {LINES}")
            with pytest.raises(errors.LabError) as caught:
                asked.results["m"].get(20)
            assert "evil" in texts(caught.value)
            assert not re.search("^Request 7", str(caught.value), re.MULTILINE)
            assert "evil" in texts(asked)
            assert not re.search("^Request 7", repr(asked), re.MULTILINE)
            texts(asked.results["m"])
    finally:
        owner.stop()


@pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}")
def test_words_of_an_analyst_deceive_no_owner(owner, session, texts):
    code = f"m = 1  # {HOSTILE}".replace("\0", "").replace("\r", "")  # which Python takes for the end of the line
    asked = session.file(Cell(code, (("patients", 1),), ("m",), {"k": HOSTILE}, f"{HOSTILE} {LINES}"))
    asked.comment(f"{HOSTILE} {LINES}")
    request = owner.requests[0]
    assert "evil" in texts(request)
    for thing in (owner.requests, owner, owner.console.card(), owner.policy, owner.audit, asked):
        texts(thing)
    texts(owner.audit.report())
    shown = describe("show", ask("hospital-a", {"do": "show", "request": "1"}))
    assert "evil" in shown
    assert not re.search("^ *Request 7", shown, re.MULTILINE)
    texts(shown)
    texts(describe("list", ask("hospital-a", {"do": "list"})))
    command = [sys.executable, "-m", "syft_lab", "requests", "show", "1"]
    texts(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
