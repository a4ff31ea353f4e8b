import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab import values
from syft_lab.errors import LabError, StateError, UsageError, WireError
from syft_lab.kernel.executor import READY, levels
from syft_lab.kernel.executor.supervisor import Executor, Job, Limits, parse

JOB = Job("x = 1", {}, ["x"], {}, 1, Limits(output=1000))


def framed(report, blob=b""):
    said = report if isinstance(report, bytes) else json.dumps(report).encode()
    return READY + len(said).to_bytes(4, "little") + said + blob


GOOD = framed({"error": None, "touched": {}}, values.encode({"x": 1}))


def test_a_report_and_a_result_are_taken_apart():
    error, touched, blob = parse(GOOD, JOB)
    assert (error, touched) == (None, {})
    assert values.decode(blob)["x"].value() == 1


def test_an_error_needs_no_result_and_is_cut_to_size():
    error, _, blob = parse(
        framed({"error": {"type": "E" * 999, "line": "7", "result": 1}, "touched": {"modules": [1] * 999}}), JOB
    )
    assert error == {"type": "E" * 100, "line": None, "result": False}
    assert blob == b""


@pytest.mark.parametrize(
    "out",
    [
        b"",
        READY,
        framed(b"[]"),
        framed(b"{"),
        framed({"error": None}),
        framed({"error": "x", "touched": {}}),
        framed({"error": None, "touched": {}}),
        framed({"error": None, "touched": {}}, values.encode({"y": 1})),
        framed({"error": None, "touched": {}}, b"x" * 2000),
        READY + b"\xff\xff\xff\x7f",
    ],
)
def test_what_is_no_report_is_refused(out):
    with pytest.raises(WireError):
        parse(out, JOB)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_report_is_refused_or_still_good(at, byte, cut):
    damaged = GOOD[:at] if cut else GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    try:
        error, _, blob = parse(damaged, JOB)
    except LabError:
        return
    if error is None:
        values.decode(blob, ["x"])


@given(st.binary(max_size=200))
def test_noise_is_refused(noise):
    with pytest.raises(WireError):
        parse(READY + noise, JOB)


def test_without_walls_nothing_starts(monkeypatch):
    monkeypatch.setenv("SYFT_LAB_ISOLATION", "none of these")
    assert levels.probe().name == "L0"
    executor = Executor(levels.probe("L0"))
    with pytest.raises(StateError, match="does not run here"):
        executor.run("x", JOB)
    executor.stop()
    with pytest.raises(StateError):
        executor.warm()


@pytest.mark.parametrize("wrong", [{"wall": 0}, {"memory": -1}, {"threads": 0}, {"cpu": "1"}])
def test_limits_are_above_nothing(wrong):
    with pytest.raises(UsageError):
        Limits(**wrong)


def test_what_analysts_are_told_of_a_level_says_nothing_of_the_machine():
    level = levels.Level("L2", "L3 does not hold here: /home/ada/bin")
    assert "/home" in str(level)
    assert "/home" not in level.label


def test_an_owner_who_stops_while_the_fork_server_boots_is_told_of_no_failure():
    executor = Executor(levels.Level("L1", "a test"))
    told = []

    def warm():
        try:
            executor.warm()
        except StateError as error:
            told.append(error)

    booting = threading.Thread(target=warm)
    booting.start()
    end = time.monotonic() + 20
    while executor._booting is None and booting.is_alive() and time.monotonic() < end:
        time.sleep(0.001)
    executor.stop()
    booting.join(20)
    assert not booting.is_alive()
    assert not told
