"""What an owner keeps back stays closed, whoever works with the analyst; and a party's walls, which have a door."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from syft_lab.kernel.executor import joint, levels
from syft_lab.kernel.executor.joint import Joint
from syft_lab.mpc import sharing
from syft_lab.mpc.aby3.shares import Shared

NAMES = ("alice", "bob", "carol")
SECRET = torch.tensor([[1.5, -2.0, 1000.0]])
SHAPE = [1, 3]


@pytest.fixture
def parties():
    """Three parties who have joined a run, in threads: all three at once for each command."""
    made = [Joint() for _ in NAMES]
    with ThreadPoolExecutor(3) as pool:

        def all(command, *args, each=None):
            futures = [pool.submit(getattr(p, command), *args, **({} if each is None else each(i))) for i, p in enumerate(made)]
            return [f.result(30) for f in futures]

        gathered = [p.gather(i, NAMES, "127.0.0.1") for i, p in enumerate(made)]
        keys = [(g["curve"], "00" * 32) for g in gathered]
        for i, p in enumerate(made):
            p.meet(keys, {str(o): f"127.0.0.1:{dict(gathered[o]['ports'])[i]}" for o in range(i)})
        all("join", 18)
        all("enter", 1, 0, SHAPE, "alice: ages v1", "", each=lambda i: {"value": SECRET if i == 0 else None, "lost": False})
        yield made, all
        for p in made:
            p.close()


def held(party, number=1) -> Shared:
    return party.space.held[number].tensor.shared


def part(found):
    return torch.frombuffer(bytearray(found), dtype=torch.int64).reshape(SHAPE)


def value(total):
    return sharing.decode(total, 18)


def test_all_three_parts_are_the_value(parties):
    _, all = parties
    parts = [part(p) for p in all("open", 1)]
    assert torch.allclose(value(sharing.join(parts)), SECRET.double(), atol=1e-4)


def closed_without(parties, all) -> bool:
    """Whether the value stays closed where one owner keeps its part, and another works with the analyst: all ways to add up
    what these two have."""
    made, parts = parties, [part(p) for p in all("open", 1)]
    for keeps in range(3):
        gives = [i for i in range(3) if i != keeps]
        for works in gives:
            (other,) = [i for i in gives if i != works]
            own = held(made[works])
            shares = {works: own.own, (works + 1) % 3: own.other}
            missing = next(i for i in range(3) if i not in shares)
            for guess in (parts[other], parts[works], parts[other] + parts[works], parts[other] - parts[works]):
                total = sharing.join([*shares.values(), guess]) if missing != works else guess
                if torch.allclose(value(total), SECRET.double(), atol=1e-3):
                    return False
    return True


def test_an_owner_who_keeps_its_part_keeps_the_value_closed_though_another_works_with_the_analyst(parties):
    assert closed_without(*parties)


def test_a_planted_fault_parts_that_are_not_masked_anew_is_caught(parties, monkeypatch):
    monkeypatch.setattr(joint, "mask", lambda party, own: own)
    assert not closed_without(*parties)


def test_parts_tell_nothing_of_the_value(parties):
    """Chi-square per byte of each owner's part, for a value of which every entry is the same."""
    _, all = parties
    many = [20_000]
    zero = torch.zeros(many)
    all("enter", 2, 1, many, "bob: zeros v1", "", each=lambda i: {"value": zero if i == 1 else None, "lost": False})
    for found in all("open", 2):
        counts = torch.bincount(torch.frombuffer(bytearray(found), dtype=torch.uint8).int(), minlength=256).double()
        expected = counts.sum() / 256
        chi = ((counts - expected) ** 2 / expected).sum().item()
        assert abs(chi - 255) < 6 * (2 * 255) ** 0.5


PROBE = """
import json, os, socket, sys
import pyseccomp
import torch
from syft_lab.kernel.executor import guard
from syft_lab.mpc import ring
os.chdir("/")
readable = guard.readable_paths()
pid = os.fork()
if pid == 0:
    guard.enter_for_plans(sys.argv[1], 1 << 30, readable, False, True)
    def attempt(work):
        try:
            work()
        except OSError as error:
            return error.errno
        return 0
    found = {
        "passwd": attempt(lambda: open("/etc/passwd").read()),
        "write": attempt(lambda: open("/tmp/syft-lab-probe", "w")),
        "environ": attempt(lambda: open(f"/proc/{os.getppid()}/environ").read(1)),
        "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
        "fork": attempt(os.fork),
        "kill": attempt(lambda: os.kill(os.getppid(), 0)),
        "listen": attempt(lambda: socket.create_server(("127.0.0.1", 0)).close()),
    }
    x = torch.arange(300 * 300).view(300, 300) * 0x9E3779B97F4A7  # machine code, where llvmlite can be read, else not
    found["product"] = int(torch.equal(ring.matmul(x, x)[:9], x[:9] @ x))
    print(json.dumps(found), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("level", ["L2", "L1"])
def test_a_party_talks_to_its_partners_and_does_nothing_else(level):
    if levels.probe(level).name != level:
        pytest.skip(f"{level} does not hold on this machine")
    done = subprocess.run([sys.executable, "-c", PROBE, level], capture_output=True, text=True, timeout=60, check=True,
                          env={**os.environ, "PYTHONPATH": ""})  # fmt: skip
    found = json.loads(done.stdout)
    assert found.pop("listen") == 0
    assert all(found.values()), found
