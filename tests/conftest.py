"""What tests share: a state folder of their own, a generated table with ids, an owner, and a connected analyst."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

import syft_lab as lab
from syft_lab.kernel.executor import levels
from syft_lab.kernel.executor.supervisor import Executor

settings.register_profile("ci", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", deadline=None, max_examples=3000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


TOGETHER = (
    "tests/ui/",
    "tests/integration/test_route.py",
    "tests/integration/test_load.py",
    "tests/integration/test_federation.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Workers share the tests; those of a place in `TOGETHER` have one worker: they share a server, or owners, or measure load."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)

    return Scheduling(config, log)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty state folder, which is also the working directory."""
    monkeypatch.setenv("SYFT_LAB_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def patients() -> pd.DataFrame:
    """2 000 admissions of about 900 people, with nulls, NaN and infinity where real data have them."""
    draw = np.random.default_rng(7)
    n = 2_000
    frame = pd.DataFrame(
        {
            "patient_id": draw.integers(0, 1_200, n),
            "age": draw.integers(18, 95, n),
            "los_days": draw.exponential(6.0, n).round(2),
            "ward": draw.choice(["er", "icu", "ward"], n, p=[0.5, 0.1, 0.4]),
            "sex": pd.Categorical(draw.choice(["f", "m"], n)),
            "readmitted": draw.random(n) < 0.2,
            "plan": draw.integers(0, 3, n),
            "note": [f"note {i % 50}" for i in range(n)],
        }
    )
    frame.loc[draw.random(n) < 0.1, "los_days"] = np.nan
    frame.loc[[3, 5], "los_days"] = [np.inf, -np.inf]
    return frame


TERMS = {
    "population": "clinic",
    "privacy_unit": "patient_id",
    "max_contributions": 3,
    "bounds": {"age": (0, 110), "los_days": (0, 60)},
    "categories": {"ward": ["er", "icu", "ward", "none"], "sex": ["f", "m"], "plan": [0, 1, 2]},
}


@pytest.fixture
def terms():
    """Arguments that publish `patients`."""
    return dict(TERMS)


@pytest.fixture
def owner(home, patients):
    """A running owner with `patients` published, alice invited, and a policy."""
    running = lab.Owner.start("hospital-a")
    running.publish(patients, name="patients", budget=lab.Budget(3.0, 1e-6), **TERMS)
    running.invite("alice", budgets={"clinic": 1.0})
    running.policy.allow("dp", dataset="patients", epsilon_per_query=0.5)
    yield running
    running.stop()


@pytest.fixture
def session(owner):
    """Alice, connected."""
    with lab.connect("alice.syft") as connected:
        yield connected


class SharedExecutor(Executor):
    """A real executor that several owners use one after the other: booting its fork server takes seconds each time."""

    def stop(self) -> None:
        with self._lock:
            for cancel in self._cancels.values():
                os.eventfd_write(cancel, 1)


@pytest.fixture(scope="session")
def fork_server():
    shared = SharedExecutor(levels.probe())
    yield shared
    Executor.stop(shared)


@pytest.fixture(scope="session")
def party_server(fork_server):
    """That for parties of federations, which have a network: the same one where jobs are not in bubblewrap."""
    if fork_server.level.name != "L3":
        yield fork_server
        return
    shared = SharedExecutor(levels.Level("L2", "for parties of federations"))
    yield shared
    Executor.stop(shared)


@pytest.fixture(scope="session")
def shared_servers(fork_server, party_server):
    """What makes executors for owners that share fork servers, where the test is not about those."""
    known = {fork_server.level: fork_server, party_server.level: party_server}
    return lambda level: known.get(level) or Executor(level)


@pytest.fixture
def warm(request, shared_servers, monkeypatch):
    """Owners of this test share one fork server, where the test is not about that (`cold`)."""
    if request.node.get_closest_marker("cold") is None:
        monkeypatch.setattr("syft_lab.kernel.owner.Executor", shared_servers)
