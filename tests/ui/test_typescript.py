"""The workbench's own unit tests, of its protocol and state, in Node."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "labextension"


def test_the_typescript_passes_its_tests():
    node = shutil.which("node")
    if node is None or not (HERE / "lib" / "test").is_dir():
        pytest.skip("Node, or the built workbench, is not here: install Node 20 and run make again")
    command = [node, "--test", "--test-reporter=tap", "--test-timeout=30000", "--test-force-exit", "lib/test/"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r"^# pass (\d+)$", done.stdout, re.M)[1]) >= 23
