"""A child that runs the plans of one session, and what the owner's kernel holds of it.

The child is forked from the warm fork server like a job, behind the same walls where they stand (seccomp with `recvmsg`, for
published tensors come as files). It runs only what the table of `ops` has, so walls are its second line: plans run at L0
too. On a GPU there is no seccomp, for the driver needs ioctls. What it dies of costs that session's values and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from syft_lab.errors import FailedError, LabError, StalePointerError
from syft_lab.kernel.executor import pipe
from syft_lab.kernel.executor.data import Data, unpack
from syft_lab.wire.chunks import Buffers

GRACE_SECONDS, REST_SECONDS = 20.0, 1.0
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
Frames = pipe.Frames


class Host(Protocol):
    """Where a session's values are: a child, or this process."""

    def call(self, do: str, facts: Mapping[str, Any], frames: Frames = (), data: Data | None = None) -> tuple[Any, Frames]:
        """Let the runner do something; raises its error, or StalePointerError where all values are lost."""

    def close(self) -> None:
        """End it; idempotent."""


def answer(runner: Any, do: str, facts: Mapping[str, Any], frames: Frames, tensor: Any = None) -> tuple[Any, Frames]:
    """Let a runner do what a command of `COMMANDS` is; raises LabError for any other, which nothing has done."""
    command = COMMANDS.get(do)
    if command is None:
        raise LabError(f"the owner's kernel sent its runner the command {do!r}, which the runner does not have, so nothing was "
                       "done; tell the owner")  # fmt: skip
    return command(runner, facts, frames, tensor)


def _run(runner: Any, facts: Mapping[str, Any], frames: Frames, _: Any) -> tuple[Any, Frames]:
    return runner.run_all(facts["runs"], [bytes(f) for f in frames]), ()


def _put(runner: Any, facts: Mapping[str, Any], frames: Frames, _: Any) -> tuple[Any, Frames]:
    runner.put(facts["value"], facts["dtype"], facts["shape"], facts["start"], frames[0])
    return {"lost": ""}, ()


def _load(runner: Any, facts: Mapping[str, Any], _: Frames, tensor: Any) -> tuple[Any, Frames]:
    runner.load(facts["value"], tensor, facts["label"], facts["name"])
    return {"lost": ""}, ()


def _fetch(runner: Any, facts: Mapping[str, Any], _: Frames, __: Any) -> tuple[Any, Frames]:
    owed = [] if facts.get("private", False) else runner.owed(facts["value"])
    if owed:
        return {"owed": len(owed)}, owed
    return None, [runner.fetch(facts["value"], facts["start"], facts["length"], facts.get("private", False))]


def _describe(runner: Any, facts: Mapping[str, Any], _: Frames, __: Any) -> tuple[Any, Frames]:
    return runner.describe(facts["value"]), ()


def _aggregate(runner: Any, facts: Mapping[str, Any], _: Frames, __: Any) -> tuple[Any, Frames]:
    owed = runner.owed(facts["value"])
    if owed:
        return {"owed": len(owed)}, owed
    return runner.aggregate(facts["value"]), ()


def _tried(runner: Any, _: Mapping[str, Any], frames: Frames, __: Any) -> tuple[Any, Frames]:
    runner.tried([bytes(f) for f in frames])
    return {"lost": ""}, ()


def _try(_: Any, __: Mapping[str, Any], frames: Frames, ___: Any) -> tuple[Any, Frames]:
    from syft_lab.kernel.executor import trial

    return [trial.tried(bytes(f)) for f in frames], ()


def _adopt(runner: Any, facts: Mapping[str, Any], frames: Frames, _: Any) -> tuple[Any, Frames]:
    value = _plain(frames[0], facts["dtype"], facts["shape"]) if frames else None
    runner.adopt(facts["value"], facts["dtype"], facts["shape"], facts["source"], value)
    return {"lost": ""}, ()


def _stats(runner: Any, _: Mapping[str, Any], __: Frames, ___: Any) -> tuple[Any, Frames]:
    return runner.stats(), ()


# To a party of a federation


def _gather(runner: Any, facts: Mapping[str, Any], _: Frames, __: Any) -> tuple[Any, Frames]:
    return runner.gather(facts["index"], facts["names"], facts["host"]), ()


def _meet(runner: Any, facts: Mapping[str, Any], _: Frames, __: Any) -> tuple[Any, Frames]:
    runner.meet(facts["keys"], facts["addresses"])
    return {"lost": ""}, ()


def _join(runner: Any, facts: Mapping[str, Any], _: Frames, __: Any) -> tuple[Any, Frames]:
    runner.join(facts["fraction"])
    return {"lost": ""}, ()


def _deal(runner: Any, facts: Mapping[str, Any], frames: Frames, _: Any) -> tuple[Any, Frames]:
    runner.deal(facts["value"], facts["shape"], facts["start"], frames[0])
    return {"lost": ""}, ()


def _enter(runner: Any, facts: Mapping[str, Any], frames: Frames, _: Any) -> tuple[Any, Frames]:
    value = _plain(frames[0], facts["dtype"], facts["shape"]) if frames else None
    about = {k: facts[k] for k in ("owner", "shape", "source", "story")}
    runner.enter(facts["value"], value=value, lost=facts.get("lost", False), **about)
    return {"lost": ""}, ()


def _open(runner: Any, facts: Mapping[str, Any], _: Frames, __: Any) -> tuple[Any, Frames]:
    return None, [runner.open(facts["value"])]


def _hand(runner: Any, facts: Mapping[str, Any], frames: Frames, _: Any) -> tuple[Any, Frames]:
    data = memoryview(frames[0]) if frames else None
    return None, [runner.hand(facts["owner"], facts["to"], facts["size"], facts["what"], data)]


Command = Callable[[Any, Mapping[str, Any], Frames, Any], tuple[Any, Frames]]

# All that a kernel can have a runner do, by the name that travels: with the facts, bytes, and the published tensor of a file.
COMMANDS: Mapping[str, Command] = {
    "run": _run, "put": _put, "load": _load, "fetch": _fetch, "describe": _describe, "aggregate": _aggregate,
    "adopt": _adopt, "stats": _stats, "tried": _tried, "try": _try,
    "gather": _gather, "meet": _meet, "join": _join, "deal": _deal, "enter": _enter, "open": _open, "hand": _hand,
}  # fmt: skip


def _plain(data: Any, dtype: str, shape: Sequence[int]) -> Any:
    """A tensor of its bytes."""
    import torch

    from syft_lab.spec import DTYPES

    whole = memoryview(data).cast("B")
    flat = torch.frombuffer(bytearray(whole), dtype=DTYPES[dtype]) if whole.nbytes else torch.empty(0, dtype=DTYPES[dtype])
    return flat.reshape(tuple(shape))


def _runner(joint: bool, device: str, memory: int, seconds: float) -> Any:
    """What holds and computes the values of a session: alone, or as a party of a federation (``joint``)."""
    from syft_lab.kernel.executor.runner import Quota, Runner

    if not joint:
        return Runner(device, Quota(memory, seconds))
    from syft_lab.kernel.executor.joint import Joint

    return Joint(device, Quota(memory, seconds))


class Here:
    """A runner in this process: for virtual owners."""

    def __init__(self, device: str, memory: int, seconds: float, joint: bool = False) -> None:
        self._runner = _runner(joint, device, memory, seconds)
        self._lock = threading.Lock()

    def call(self, do: str, facts: Mapping[str, Any], frames: Frames = (), data: Data | None = None) -> tuple[Any, Frames]:
        """See `Host`."""
        with self._lock:
            if data is None:
                return answer(self._runner, do, facts, frames)
            with data.opened() as fd:
                tensor = matrix(fd, data.layout, facts)
            return answer(self._runner, do, facts, frames, tensor)

    def close(self) -> None:
        """See `Host`. What runs just now is let finish first: another thread must not take its sockets away."""
        threading.Thread(target=self._end, name="syft-close", daemon=True).start()

    def _end(self) -> None:
        from syft_lab.kernel.executor.runner import Space

        with self._lock:
            self._runner.close()
            self._runner.space = Space()


class Child:
    """A runner in a child. ``channel`` is the fork server's word about it: that it began, and how it ended.

    ``last_words`` is what it wrote to its log, for the owner, once it is gone.
    """

    def __init__(self, sock: socket.socket, channel: socket.socket, pidfd: int, pid: int, seconds: float, log: int) -> None:
        self.last_words, self._log = "", log
        os.set_blocking(log, False)
        self._sock, self._channel, self._pidfd, self.pid = sock, channel, pidfd, pid
        self._sock.settimeout(seconds + GRACE_SECONDS)
        self._seconds = seconds
        self._lock, self._buffers = threading.Lock(), Buffers()
        self._gone = ""

    def call(self, do: str, facts: Mapping[str, Any], frames: Frames = (), data: Data | None = None) -> tuple[Any, Frames]:
        """See `Host`."""
        with self._lock:
            if self._gone:
                raise StalePointerError(self._gone)
            try:
                with contextlib.nullcontext() if data is None else data.opened() as fd:
                    pipe.send(self._sock, [do, dict(facts)], frames, () if fd is None else (fd,))
                (kind, found), out, _ = pipe.receive(self._sock, 0, lambda _, size: self._buffers.take(size))
            except TimeoutError:
                self._end(f"a plan took longer than {self._seconds:g} s")
                raise StalePointerError(self._gone) from None
            except (OSError, EOFError, ValueError, MemoryError):  # gone, or it says what no child of ours would
                self._end("")
                raise StalePointerError(self._gone) from None
        if kind == "error":
            raise _error(*found)
        return found, out

    def close(self) -> None:
        """See `Host`. Also while it computes: then that is over."""
        self._kill()
        with self._lock:
            self._end("the session ended")

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _end(self, why: str) -> None:
        if self._gone:
            return
        status = 0
        if not why:  # it ended by itself: ask how
            with contextlib.suppress(OSError, ValueError, TimeoutError):
                self._channel.settimeout(5)
                status = int(json.loads(self._channel.recv(4096))["status"])
        self._kill()
        what = _ENDS.get(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else ""
        self._gone = why or f"the process that ran your plans was lost{f'; {what}' if what else ''}"
        with contextlib.suppress(OSError):
            self.last_words = os.read(self._log, 1 << 14).decode("utf-8", "replace")
        for each in (self._sock, self._channel):
            each.close()
        for fd in (self._pidfd, self._log):
            os.close(fd)


_ENDS: dict[int, str] = {
    signal.SIGKILL: "it was killed, as the system does where memory is short",
    signal.SIGSEGV: "it crashed (segmentation fault)",
    signal.SIGABRT: "it crashed (aborted)",
}


def _error(code: str, text: str) -> LabError:
    from syft_lab.errors import from_code

    return from_code(code, text)


def matrix(fd: int, layout: Mapping[str, Any], facts: Mapping[str, Any]) -> Any:
    """The published tensor in a file, or the columns of a table side by side; missing numbers are NaN."""
    import torch

    found = unpack(fd, dict(layout))
    if layout["kind"] == "tensor":
        return found
    made = [torch.from_numpy(found[c].to_numpy(dtype="float32", na_value=float("nan")).copy()) for c in facts["columns"]]
    return torch.stack(made, 1)


class _Pages:
    """Lets malloc keep what is freed, while there is work; what is kept goes back when nothing was asked for a while.

    Each step of a training frees and takes the same tensors, and new pages cost as much as computing on them, or several
    times that where the host of a virtual machine has to find them first.
    """

    def __init__(self) -> None:
        self._malloc = ctypes.CDLL(None)
        self._kept = hasattr(self._malloc, "mallopt")
        if self._kept and not self._malloc.mallopt(M_MMAP_THRESHOLD, 1 << 30):
            self._malloc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that older ones take
        if self._kept:
            self._malloc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)

    def give_back(self) -> None:
        """Free pages go to the system."""
        if self._kept:
            self._malloc.malloc_trim(0)


def serve(sock: socket.socket, spec: Mapping[str, Any]) -> int:
    """In the child: answer until the kernel is gone."""
    import torch

    torch.set_num_threads(spec["limits"]["threads"])
    pages = _Pages()
    runner, broken = None, LabError("")
    try:
        given = spec["plans"]
        runner = _runner(given["joint"], given["device"], spec["limits"]["memory"], spec["limits"]["wall"])
    except LabError as error:  # it is said to whoever asks for something
        broken = error
    buffers = Buffers()

    def take(header: Any, size: int) -> memoryview:
        do, facts = header
        place = None
        if do == "put" and runner is not None:  # straight to where it belongs
            place = runner.place(facts["value"], facts["dtype"], facts["shape"], facts["start"], size)
        return buffers.take(size) if place is None else place

    while True:
        if not pipe.waiting(sock, REST_SECONDS):
            pages.give_back()
        try:
            (do, facts), frames, fds = pipe.receive(sock, 1, take)
        except (EOFError, OSError):
            return 0
        reply: Sequence[Any]
        out: Frames = ()
        try:
            if runner is None:
                raise broken
            try:
                tensor = matrix(fds[0], facts["layout"], facts) if fds else None
            finally:
                for fd in fds:
                    os.close(fd)
            found, out = answer(runner, do, facts, frames, tensor)
            reply = ("ok", found)
        except LabError as error:
            reply = ("error", [error.code, str(error)])
        except MemoryError:
            reply = ("error", [FailedError.code, "the owner's machine has not enough memory for this plan"])
        except torch.AcceleratorError:  # a GPU's context does not survive that
            return 1
        except Exception:  # of ours; its text, and even its type, might tell of values: the log is the owner's
            traceback.print_exc()
            reply = ("error", [LabError.code, "the owner's runner met a fault; tell the owner"])
        pipe.send(sock, reply, out)
