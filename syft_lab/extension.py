"""What ``%load_ext syft_lab`` does: registers the magics of both sides, and completes their words."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from IPython import get_ipython
from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from syft_lab import workbench
from syft_lab.analyst.frame import PointerFrame
from syft_lab.analyst.magics import AnalystMagics, connection_names, sessions_in
from syft_lab.kernel.magics import OwnerMagics
from syft_lab.widgets import route

_WORDS = {
    "%owner": ("start", "stop", "status", "--listen", "--advertise", "--device"),
    "%connect": ("--as", "--timeout"),
    "%budget": (),
    "%requests": ("list", "show", "fetch", "comment", "cancel", "--owner"),
    "%%remote": ("--use", "--return", "--reason", "--param", "--follows", "--block", "--noblock", "--dry-run"),
}


def load(shell: Any) -> None:
    """Register everything with an IPython shell, once: loading again leaves a running owner where it is."""
    if "OwnerMagics" in shell.magics_manager.registry:
        return
    shell.register_magics(OwnerMagics, AnalystMagics)
    route.install(getattr(shell, "kernel", None))
    workbench.install(shell)
    shell.Completer.custom_matchers.append(complete)
    _with_torch()


def _with_torch() -> None:
    """Give torch's tensors and modules `send`, now or as soon as somebody imports torch; nobody waits for it otherwise."""
    if "torch" in sys.modules:
        import_module("syft_lab.analyst.pointer").install()
    elif not any(isinstance(finder, _WhenTorchComes) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenTorchComes())


class _WhenTorchComes(MetaPathFinder):
    """Finds torch as Python would, and has `install` called once it is there."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        found = find_spec(name)
        if found is None or found.loader is None:
            return found
        execute = found.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            import_module("syft_lab.analyst.pointer").install()

        found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


@context_matcher()  # type: ignore[untyped-decorator]
def complete(context: CompletionContext) -> SimpleMatcherResult:
    """Words that may follow our magics: actions, options, known connections, invitation files."""
    line = context.text_until_cursor.rpartition("\n")[2]
    magic, _, rest = line.lstrip().partition(" ")
    if magic not in _WORDS or len(line.lstrip()) == len(magic):
        return {"completions": []}
    token = rest.rpartition(" ")[2]
    words = list(_WORDS[magic])
    if magic in ("%connect", "%budget"):
        words += connection_names()
    if magic in ("%%remote", "%requests", "%budget"):
        words += _remote_words(magic, rest)
    if magic == "%connect":
        words += sorted(p.name for p in Path.cwd().glob("*.syft"))
    found = [SimpleCompletion(text=w, type="param") for w in words if w.startswith(token)]
    return {"completions": found, "matched_fragment": token, "suppress": bool(found)}


def _remote_words(magic: str, rest: str) -> list[str]:
    """Connections of this notebook; after ``--use`` the datasets of the one that was named, and frames of the notebook."""
    shell = get_ipython()
    found = {} if shell is None else sessions_in(shell.user_ns)
    before = rest.split()[: -1 if rest and not rest.endswith(" ") else None]
    if magic != "%%remote" or not before:
        return list(found)
    last = next((w for w in reversed(before) if w.startswith("--")), "")
    chosen = [s for n, s in found.items() if before[0] in (n, s.alias)]
    if last != "--use" or shell is None:
        return []
    frames = [n for n, value in shell.user_ns.items() if isinstance(value, PointerFrame) and not n.startswith("_")]
    return sorted({*(d for s in chosen for d in s.known_datasets), *frames})
