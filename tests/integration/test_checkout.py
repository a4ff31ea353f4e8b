"""Kernels whose Syft Lab is a folder, by PYTHONPATH or by where they started, beside an installed one: code runs with that same one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import syft_lab
from syft_lab.kernel.executor import levels, origin

AVAILABLE = [n for n in ("L3", "L2", "L1") if levels.probe(n).name == n]
pytestmark = pytest.mark.skipif(not AVAILABLE, reason="no walls can be put up on this machine")

RUN = """
import json, sys
import syft_lab
from syft_lab.errors import StateError
from syft_lab.kernel.executor import levels, wall
from syft_lab.kernel.executor.supervisor import Executor, Job

def run(executor):
    code = "import syft_lab\\ntry: import neighbour\\nexcept ImportError: neighbour = 'alone'\\nprint(syft_lab.__file__, neighbour)"
    done = executor.run("a", Job(code, {}, [], {}, 1))
    return done.why + done.log.strip()

names = sys.argv[1].split(",")
found = {"kernel": syft_lab.__file__, "levels": {}, "changed": ""}
for name in names:
    level = levels.probe(name)
    executor = Executor(level)
    found["levels"][level.name] = run(executor)
    executor.stop()
executor = Executor(levels.probe(names[-1]))
if "change" in sys.argv:
    with open(syft_lab.__file__, "a") as file:
        file.write("# another version\\n")
    try:
        found["changed"] = run(executor)
    except StateError as error:
        found["changed"] = str(error)
    executor.stop()
print(json.dumps(found))
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of the package whose fork server imports little, so that it starts soon; and a neighbour that nobody asked for."""
    place = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "labextension", "tests")
    shutil.copytree(Path(syft_lab.__file__).parent, place / "syft_lab", ignore=ignore)
    zygote = place / "syft_lab" / "kernel" / "executor" / "zygote.py"
    zygote.write_text(zygote.read_text().replace("def preload", 'MODULES = ["numpy", "pandas"]\n\n\ndef preload', 1))
    (place / "neighbour.py").touch()
    return place


def told(cwd, path, *arguments, code=RUN):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, cwd=cwd, capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_code_runs_with_the_kernels_own_syft_lab_at_every_level_and_with_no_changed_one(checkout, tmp_path):
    found = told(tmp_path, checkout, ",".join(AVAILABLE), "change")
    own = str(checkout / "syft_lab" / "__init__.py")
    assert found["kernel"] == own
    assert found["levels"] == dict.fromkeys(AVAILABLE, f"{own} alone")
    assert "restart the kernel" in found["changed"]


def test_a_kernel_that_starts_in_a_checkout_runs_code_with_it(checkout):
    found = told(checkout, None, AVAILABLE[0])
    own = str(checkout / "syft_lab" / "__init__.py")
    assert Path(found["kernel"]).resolve() == Path(own)
    assert found["levels"] == {AVAILABLE[0]: f"{own} alone"}


SHARE = """
import json, sys
from syft_lab.kernel.executor import levels
from syft_lab.kernel.executor.supervisor import Executor, Job

executor = Executor(levels.probe(sys.argv[1]))
code = "print(bytes(shared[:5])); shared[:5] = b'other'; print(bytes(shared[:5]))"
said = [executor.run("a", Job(code, {}, [], {}, 1)).log for _ in range(2)]
executor.stop()
print(json.dumps(said))
"""


def test_memory_that_a_library_of_the_fork_server_shares_passes_nothing_from_one_job_to_the_next(checkout, tmp_path):
    zygote = checkout / "syft_lab" / "kernel" / "executor" / "zygote.py"
    library = "import builtins, mmap\n\nbuiltins.shared = mmap.mmap(-1, 4096)\nshared[:5] = b'first'\n\n\ndef preload"
    zygote.write_text(zygote.read_text().replace("def preload", library, 1))
    said = told(tmp_path, checkout, AVAILABLE[-1], code=SHARE)
    assert said == ["b'first'\nb'other'\n"] * 2


def test_the_digest_tells_every_file_and_every_name_apart(tmp_path):
    folder = tmp_path / "syft_lab"
    shutil.copytree(Path(syft_lab.__file__).parent / "wire", folder)
    seen = {origin.digest_of(folder)}
    (folder / "codec.py").rename(folder / "codecs.py")
    seen.add(origin.digest_of(folder))
    (folder / "link.py").write_bytes((folder / "link.py").read_bytes() + b"\n")
    seen.add(origin.digest_of(folder))
    (folder / "notes.txt").write_text("no code")
    assert len(seen) == 3
    assert origin.digest_of(folder) in seen
