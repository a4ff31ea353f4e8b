"""Where this very code of Syft Lab lies, and how a process of its own runs it.

The fork server starts with a clean environment, so Python's search would find an installed version, or none, where the
kernel runs a checkout or was pointed at a folder by PYTHONPATH. Walls of another version are no walls: it is given the
folder of the package, and nothing else of that place, and says which code it runs.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from pathlib import Path

# Imports the package from its folder alone, whose neighbours are not to be found, and runs a module of it.
START = """
import runpy, sys
from importlib.util import module_from_spec, spec_from_file_location
_, place, packages, module, *rest = sys.argv
sys.path += [p for p in packages.split(":") if p and p not in sys.path]
spec = spec_from_file_location("syft_lab", place + "/__init__.py", submodule_search_locations=[place])
sys.modules["syft_lab"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["syft_lab"])
sys.argv = [module, *rest]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def package() -> Path:
    """The folder of this package."""
    return Path(__file__).resolve().parents[2]


def packages() -> list[str]:
    """Folders of installed packages that this process imports from, in its order; also a user's own."""
    return [p for p in sys.path if p.endswith(("site-packages", "dist-packages")) and os.path.isdir(p)]


def command(module: str, *arguments: str) -> list[str]:
    """Our Python, alone, running a module of this package: no user's environment, no current folder, no written bytecode."""
    return [sys.executable, "-I", "-B", "-c", START, str(package()), ":".join(packages()), module, *arguments]


@cache
def digest() -> str:
    """The digest of this package, as it was when this process first asked: soon after it was imported."""
    return digest_of(package())


def digest_of(folder: Path) -> str:
    """SHA-256 of the Python source in a folder, in hex: of names and contents, in order."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(folder)} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()
