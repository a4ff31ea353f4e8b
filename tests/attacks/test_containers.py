"""Owners in containers: what is left of the walls where namespaces, Landlock or seccomp are forbidden. Tried in real processes
under the profiles that container engines put up, simulated by a filter of system calls before Python starts."""

import json
import subprocess
import sys

import pytest

from syft_lab.kernel.executor import levels

pytestmark = pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}")

SCRIPT = """
import errno, json, os, sys
import pyseccomp as seccomp

forbid = json.loads(sys.argv[1])
walls = seccomp.SyscallFilter(seccomp.ALLOW)
if "namespaces" in forbid:
    for name in ("unshare", "setns", "mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen"):
        walls.add_rule(seccomp.ERRNO(errno.EPERM), name)
    for flag in (0x10000000, 0x20000000, 0x40000000, 0x00020000):
        walls.add_rule(seccomp.ERRNO(errno.EPERM), "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    walls.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
if "landlock" in forbid:
    for number in (444, 445, 446):
        walls.add_rule(seccomp.ERRNO(errno.ENOSYS), number)
walls.load()
if "seccomp" in forbid:  # last: nothing can be added afterwards
    last = seccomp.SyscallFilter(seccomp.ALLOW)
    last.add_rule(seccomp.ERRNO(errno.EPERM), "seccomp")
    last.add_rule(seccomp.ERRNO(errno.EPERM), "prctl", seccomp.Arg(0, seccomp.EQ, 22))
    last.load()

from syft_lab import errors, values
from syft_lab.kernel.executor import levels
from syft_lab.kernel.executor.supervisor import Executor, Job

level = levels.probe()
found = {"level": level.name, "why": level.why}
if __name__ == "__main__" and sys.argv[2] == "run":
    executor = Executor(level)
    try:
        done = executor.run("a", Job("m = sum(range(10))", {}, ["m"], {}, 1))
        found["m"] = values.decode(done.blob)["m"].value() if done.blob else done.why
        code = "import os\\ntried = {}\\n"
        for name, attempt in {"file": "open('/etc/passwd')", "folder": "os.listdir('/')", "socket": "__import__('socket').socket()",
                              "fork": "os.fork()", "exec": "os.execv('/bin/true', ['true'])"}.items():
            code += f"try:\\n    {attempt}\\n    tried[{name!r}] = 1\\nexcept BaseException:\\n    tried[{name!r}] = 0\\n"
        done = executor.run("b", Job(code + "m = sum(tried.values())", {}, ["m"], {}, 1))
        found["worked"] = values.decode(done.blob)["m"].value() if done.blob else done.why
    except errors.StateError as error:
        found["error"] = str(error)
    finally:
        executor.stop()
print(json.dumps(found))
"""


def within(*forbid, run=True):
    """What an owner finds in a container that forbids these things."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(forbid), "run" if run else ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_without_namespaces_code_runs_at_l2():
    """Docker's and Podman's default profiles: no new namespaces."""
    found = within("namespaces")
    assert found["level"] == "L2", found
    assert (found["m"], found["worked"]) == (45, 0)
    assert "L3" in found["why"]


def test_without_landlock_code_runs_at_l1():
    """Kernels before 5.13, gVisor, and engines whose profile does not know Landlock."""
    found = within("namespaces", "landlock")
    assert found["level"] == "L1", found
    assert (found["m"], found["worked"]) == (45, 0)


def test_without_seccomp_code_is_refused():
    found = within("namespaces", "landlock", "seccomp")
    assert found["level"] == "L0", found
    assert "approved code does not run here" in found["error"]
    assert "m" not in found


def test_a_container_where_only_seccomp_is_forbidden_is_no_better():
    """Landlock alone is no wall: system calls would be open."""
    assert within("seccomp", run=False)["level"] == "L0"


def test_a_gpu_is_said_not_to_be_given_to_code(monkeypatch):
    monkeypatch.setattr(levels, "has_gpu", lambda: True)
    assert "GPU is not given to approved code" in str(levels.Level("L2"))
    assert "GPU" not in levels.Level("L2").label  # what analysts read tells nothing about the machine
    assert "GPU" not in str(levels.Level("L0"))
