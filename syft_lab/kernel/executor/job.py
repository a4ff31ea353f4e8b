"""One job, in the locked-down child: put up the walls, map the data, run the cell, send what it returns.

What it writes to the pipe ``out``: one byte when the walls stand, then a report (4 bytes length, JSON), then the blob of
`syft_lab.values`. Whoever reads it trusts none of it, for the cell could write there itself. Prints and tracebacks go to
the pipe ``log``, which the owner alone reads.
"""

from __future__ import annotations

import builtins
import json
import linecache
import os
import random
import socket
import sys
import traceback
import types
from collections.abc import Sequence
from typing import Any

from syft_lab import values
from syft_lab.errors import UsageError
from syft_lab.kernel.executor import READY, guard, plans
from syft_lab.kernel.executor import data as tables

CELL = "<approved cell>"
MAX_TOUCHED = 200


def child(fds: Sequence[int], readable: Sequence[str], threadpools: Any) -> int:
    """Run the job whose files are ``fds`` = [out, log, spec, data…]; gives the exit code. Never returns to the server."""
    out, log, spec_fd, *data = fds
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    guard.close_files([0, 1, 2, out, spec_fd, *data])
    spec = json.loads(_read_all(spec_fd))
    os.close(spec_fd)
    limits = spec["limits"]
    if "plans" in spec:
        kernel = socket.socket(fileno=data[0])
        given = spec["plans"]
        if given["kernels"]:  # what Triton compiles for a GPU is kept there
            os.environ["TRITON_CACHE_DIR"] = given["kernels"]
        guard.enter_for_plans(spec["level"], limits["memory"], readable, given["device"] != "cpu", given["joint"])
        os.write(out, READY)
        return plans.serve(kernel, spec)
    size = sum(os.fstat(fd).st_size for fd in data)
    guard.enter(spec["level"], limits["cpu"], limits["memory"], size, readable)
    os.write(out, READY)
    _seed(spec["seed"])
    _threads(limits["threads"], threadpools)
    main = types.ModuleType("__main__")
    touched = _watch(main.__dict__) if spec["watch"] else {}
    sys.modules["__main__"] = main
    for fd, (name, layout) in zip(data, spec["data"], strict=True):
        setattr(main, name, tables.unpack(fd, layout))
        os.close(fd)
    main.__dict__.update(spec["params"])
    linecache.cache[CELL] = (len(spec["code"]), None, spec["code"].splitlines(True), CELL)
    report: dict[str, Any] = {"error": None, "touched": touched}
    blob = b""
    try:
        exec(compile(spec["code"], CELL, "exec"), main.__dict__)  # noqa: S102 - this is what the walls are for
        missing = [n for n in spec["returns"] if n not in main.__dict__]
        if missing:
            raise UsageError(f"the cell does not make {missing[0]}, which it should return")
        blob = values.encode({n: main.__dict__[n] for n in spec["returns"]})
    except BaseException as error:
        report["error"] = {"type": type(error).__name__, "line": _line(error), "result": isinstance(error, UsageError)}
        traceback.print_exception(error, limit=-8, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    said = json.dumps(report).encode()
    _write_all(out, len(said).to_bytes(4, "little") + said)
    _write_all(out, blob)
    return 1 if report["error"] else 0


def _read_all(fd: int) -> bytes:
    found = bytearray()
    while part := os.pread(fd, 1 << 20, len(found)):  # its offset is shared with whoever made it
        found += part
    return bytes(found)


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _seed(seed: int) -> None:
    """Forked jobs would share the server's random state. For repeatable runs only: noise and keys are never drawn here."""
    import numpy as np

    fresh = np.random.default_rng

    def default_rng(seed: Any = None) -> Any:
        return fresh(np.random.randint(0, 2**31, 4) if seed is None else seed)

    random.seed(seed)
    np.random.seed(seed % 2**32)
    np.random.default_rng = default_rng  # without a seed it would ask the system, and a run could not be repeated
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _threads(count: int, threadpools: Any) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if threadpools is not None:
        threadpools.limit(limits=count)


def _watch(namespace: dict[str, Any]) -> dict[str, list[str]]:
    """Note what a run on the mock reaches for. A help for the owner: the code could lie about it."""
    touched: dict[str, list[str]] = {"modules": [], "files": [], "other": []}

    def note(where: str, what: str) -> None:
        if what not in touched[where] and len(touched[where]) < MAX_TOUCHED:
            touched[where].append(what[:200])

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str) and not args[0].startswith((sys.prefix, sys.base_prefix, "<")):
            note("files", args[0])
        elif event.partition(".")[0] in ("socket", "subprocess", "ctypes", "os", "pty", "shutil", "urllib", "webbrowser"):
            note("other", event)

    def importing(name: str, globals: Any = None, *rest: Any, **named: Any) -> Any:
        if globals is namespace:
            note("modules", name.partition(".")[0])
        return imported(name, globals, *rest, **named)

    imported, builtins.__import__ = builtins.__import__, importing
    sys.addaudithook(hook)
    return touched


def _line(error: BaseException) -> int | None:
    """The cell's line that raised."""
    if isinstance(error, SyntaxError) and error.filename == CELL:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == CELL]
    return lines[-1] if lines else None
