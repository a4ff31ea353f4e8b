"""Runs a module of this folder in a process of its own, which may end in any way, and reads the lines of JSON that it prints."""

import json
import os
import subprocess
import sys

SECONDS = 280


def told(module, *arguments, **environment):
    """The lines that ``python -m tests.attacks.MODULE`` printed, and the last of them."""
    command = [sys.executable, "-m", f"tests.attacks.{module}", *arguments]
    more = {**os.environ, **environment}
    done = subprocess.run(command, env=more, capture_output=True, text=True, timeout=SECONDS, check=True)
    *lines, last = map(json.loads, done.stdout.splitlines())
    return lines, last
