"""The owner's side of the executor: keeps the fork server warm, hands it jobs, and watches each from outside.

`Executor.run` blocks the thread that calls it, and no other: the kernel's own loop never waits for a job. A job ends by
itself, by its limits (time, CPU, memory, threads, result, log), by `cancel`, or with the fork server.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from syft_lab import canonical, state, values
from syft_lab.cell import NO_RESULT, RAISED
from syft_lab.errors import StateError, UsageError, WireError
from syft_lab.kernel.executor import READY, levels, origin
from syft_lab.kernel.executor.data import Data, sealed
from syft_lab.kernel.executor.plans import Child

BOOT_SECONDS = 120.0
TICK = 0.02
MAX_REPORT = 1 << 20
LOG_FLOOD = 16
MEMORY = ("RssAnon", "RssShmem", "VmSwap", "VmPTE")  # what a job takes from the machine; the last are tables of pages


@dataclass(frozen=True)
class Limits:
    """What one job may take. Times in seconds, sizes in bytes; ``memory`` is beyond packages and data."""

    wall: float = 600.0
    cpu: int = 600
    memory: int = 4 << 30
    output: int = 16 << 20
    log: int = 64 << 10
    threads: int = max(1, (os.cpu_count() or 2) // 2)

    def __post_init__(self) -> None:
        wrong = [n for n, v in asdict(self).items() if not isinstance(v, int | float) or v <= 0]
        if wrong:
            raise UsageError(f"the limit {wrong[0]} must be above 0")


@dataclass(frozen=True)
class Job:
    """A cell and what it may see. ``returns`` are the names that leave; ``watch`` notes what a mock run touches."""

    code: str
    data: Mapping[str, Data]
    returns: Sequence[str]
    params: Mapping[str, Any]
    seed: int
    limits: Limits = field(default_factory=Limits)
    watch: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a job ended. ``blob`` is its checked result, or empty; ``why`` says what went wrong and holds nothing private.

    ``log`` and ``error`` (class and line) come from private data: the owner alone sees them.
    """

    why: str
    blob: bytes
    log: str
    error: Mapping[str, Any] | None
    touched: Mapping[str, Any]
    seconds: float
    ready: float
    peak: int


class Executor:
    """Runs jobs at the level that `levels.probe` found. Safe to use from several threads."""

    def __init__(self, level: levels.Level) -> None:
        self.level = level
        self._code = origin.digest()
        self._boot = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._booting: socket.socket | None = None
        self._cancels: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def warm(self) -> None:
        """Boot the fork server, which takes seconds once; raises StateError, but not where `stop` came between."""
        before = self._stopped
        try:
            self._server()
        except StateError:
            if before or not self._stopped:
                raise

    @property
    def pid(self) -> int | None:
        """The fork server's process, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def stop(self) -> None:
        """End the fork server and with it all jobs; idempotent."""
        self._stopped = True
        booting = self._booting
        if booting is not None:  # whoever boots it holds the lock until it answers; this ends the wait
            with contextlib.suppress(OSError):
                booting.shutdown(socket.SHUT_RDWR)
        with self._boot:
            self._end()

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        self._control = self._process = None

    def _server(self, plans: bool = False) -> socket.socket:
        """The control socket of a live fork server; boots one if there is none. Without walls it is for ``plans`` alone."""
        with self._boot:
            if self._stopped:
                raise StateError("the executor is stopped")
            if self.level.name == "L0" and not plans:
                raise StateError(f"approved code does not run here: isolation {self.level}")
            if self._control is not None and self._process is not None and self._process.poll() is None:
                return self._control
            self._end()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [*self.level.prefix, *origin.command("syft_lab.kernel.executor.zygote", str(theirs.fileno()))]
            with tempfile.TemporaryFile() as said:
                self._process = subprocess.Popen(  # noqa: S603
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
                    env=levels.environment(), start_new_session=True, cwd="/",
                )  # fmt: skip
                theirs.close()
                ours.settimeout(BOOT_SECONDS)
                self._booting = ours
                try:
                    up = b"" if self._stopped else ours.recv(128)
                except TimeoutError:
                    up = b""
                finally:
                    self._booting = None
                if up != b"up " + self._code.encode():
                    ours.close()
                    self._process.kill()
                    self._process.wait(5)
                    said.seek(0)
                    last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
                    raise StateError(OTHER_CODE if up else f"the fork server for approved code did not start: {last[0][:300]}")
            self._control = ours
            return ours

    def cancel(self, name: str) -> None:
        """End the job that runs as ``name``, if there is one."""
        with self._lock:
            if name in self._cancels:
                os.eventfd_write(self._cancels[name], 1)

    def run(self, name: str, job: Job, began: Callable[[], None] | None = None) -> Outcome:
        """Run a job to its end, and check its result. ``began`` is called when its walls stand. Raises StateError."""
        cancel = os.eventfd(0, os.EFD_CLOEXEC)
        with self._lock:
            if name in self._cancels:
                os.close(cancel)
                raise StateError("this job runs already")
            self._cancels[name] = cancel
        try:
            return _Watch(job, cancel, began).run(self._server(), self.level.name)
        finally:
            with self._lock:
                del self._cancels[name]
                os.close(cancel)

    def plans(self, device: str, limits: Limits, joint: bool = False) -> Child:
        """Start a child that runs plans on ``device``, alone or as a party of a federation (``joint``).

        Raises StateError where there is none to be had.
        """
        control = self._server(plans=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        kernels = "" if device == "cpu" else str(state.make_private(state.home() / "kernels"))
        given = {"device": device, "joint": joint, "kernels": kernels}
        spec = {"plans": given, "level": self.level.name, "limits": asdict(limits)}
        lost = StateError("the process that runs plans could not be started; ask the owner")
        try:
            channel, out, log = _post(control, spec, [theirs.fileno()])
        except OSError:
            ours.close()
            raise lost from None
        finally:
            theirs.close()
        try:
            channel.settimeout(BOOT_SECONDS)
            _, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(4))
            pidfds = array.array("i")
            for _, _, received in ancillary:
                pidfds.frombytes(received)
            if not pidfds or not select.select([out], [], [], BOOT_SECONDS)[0] or os.read(out, 1) != READY:
                raise OSError
        except OSError:
            ours.close()
            channel.close()
            os.close(log)
            raise lost from None
        finally:
            os.close(out)
        return Child(ours, channel, pidfds[0], _pid_of(pidfds[0]), limits.wall, log)


def _post(control: socket.socket, spec: dict[str, Any], data: Sequence[int]) -> tuple[socket.socket, int, int]:
    """Hand a job to the fork server; gives the channel on which it tells of it, and the pipes of results and log."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    out_fd, out = os.pipe2(os.O_CLOEXEC)
    log_fd, log = os.pipe2(os.O_CLOEXEC)
    mine = [theirs.fileno(), out, log, sealed(canonical.dumps(spec))]
    try:
        control.sendmsg([b"job"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [*mine, *data]))])
    except OSError:
        ours.close()
        for fd in (out_fd, log_fd):
            os.close(fd)
        raise
    finally:
        theirs.close()
        for fd in mine[1:]:
            os.close(fd)
    return ours, out_fd, log_fd


class _Watch:
    """One job seen from outside: its pipes, its clock, its memory."""

    def __init__(self, job: Job, cancel: int, began: Callable[[], None] | None) -> None:
        self.job, self.cancel, self.began = job, cancel, began
        self.out, self.log = bytearray(), bytearray()
        self.flood = self.peak = self.base = 0
        self.why = ""
        self.ready = 0.0
        self.pidfd = -1
        self.pid = 0
        self.ending: set[str] | None = None
        self.ended: dict[str, Any] | None = None

    def run(self, control: socket.socket, level: str) -> Outcome:
        start = time.perf_counter()
        channel = self._send(control, level)
        try:
            self._follow(channel, start)
        finally:
            for fd in (self.out_fd, self.log_fd, self.pidfd):
                if fd >= 0:
                    os.close(fd)
            channel.close()
        return self._outcome(time.perf_counter() - start)

    def _send(self, control: socket.socket, level: str) -> socket.socket:
        job = self.job
        spec = {
            "code": job.code, "returns": list(job.returns), "params": dict(job.params), "seed": job.seed, "level": level,
            "limits": asdict(job.limits), "watch": job.watch, "data": [[n, d.layout] for n, d in job.data.items()],
        }  # fmt: skip
        try:
            with contextlib.ExitStack() as opened:
                files = [opened.enter_context(d.opened()) for d in job.data.values()]
                ours, self.out_fd, self.log_fd = _post(control, spec, files)
        except OSError:
            self.why = LOST
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs.close()
            for name in ("out_fd", "log_fd"):
                fd, end = os.pipe2(os.O_CLOEXEC)
                os.close(end)
                setattr(self, name, fd)
        return ours

    def _follow(self, channel: socket.socket, start: float) -> None:
        poll = select.poll()
        open_pipes = {self.out_fd, self.log_fd}
        for fd in (*open_pipes, channel.fileno(), self.cancel):
            poll.register(fd, select.POLLIN)
        deadline = start + self.job.limits.wall
        next_look = start
        while open_pipes or self.ended is None:
            for fd, _ in poll.poll(TICK * 1000):
                if fd == self.cancel:
                    poll.unregister(fd)
                    self._kill("it was cancelled")
                elif fd == channel.fileno():
                    if not self._hear(channel):
                        poll.unregister(fd)
                elif not self._read(fd, start):
                    poll.unregister(fd)
                    open_pipes.discard(fd)
            now = time.perf_counter()
            if now > deadline:
                self._kill(f"it took longer than {self.job.limits.wall:g} s")
            if now >= next_look and self.pid and self.ended is None:
                next_look = now + TICK
                self._look()

    def _hear(self, channel: socket.socket) -> bool:
        """A message of the fork server about this job; False when there will be no more."""
        message, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(4))
        if not message:
            if self.ended is None:  # the fork server died, and the job with it
                self._kill(LOST)
                self.ended = {"status": signal.SIGKILL, "peak": 0, "cpu": 0.0}
            return False
        for _, _, received in ancillary:
            (self.pidfd,) = array.array("i", received)
            self.pid = _pid_of(self.pidfd)
            if self.why:  # cancelled before it was there
                self._signal()
        if message.startswith(b"{"):
            self.ended = json.loads(message)
        return True

    def _read(self, fd: int, start: float) -> bool:
        """Take what a pipe holds; False at its end."""
        part = os.read(fd, 1 << 18)
        if not part:
            return False
        if fd == self.out_fd:
            if not self.ready:
                self.ready = time.perf_counter() - start
                self._look()  # what it has now is the fork server's; what comes is its own
                if self.began is not None:
                    self.began()
            if len(self.out) + len(part) > self.job.limits.output + MAX_REPORT:
                self._kill(f"its result is larger than {self.job.limits.output} bytes")
            else:
                self.out += part
            return True
        room = self.job.limits.log - len(self.log)
        self.log += part[: max(0, room)]
        self.flood += len(part)
        if self.flood > LOG_FLOOD * self.job.limits.log:
            self._kill("it printed without end")
        return True

    def _look(self) -> None:
        """Memory and threads, as the system counts them."""
        facts = _status(f"/proc/{self.pid}")
        if facts.get("Threads", 0) > 64 + 8 * self.job.limits.threads:
            self._kill("it started too many threads")
        if "RssAnon" not in facts:  # its first thread has ended alone, or all of it does
            facts = self._by_another_thread()
        if "RssAnon" not in facts:
            return
        anonymous = sum(facts.get(kind, 0) for kind in MEMORY) << 10
        self.base = self.base or anonymous
        self.peak = max(self.peak, anonymous - self.base)
        data = sum(d.size for d in self.job.data.values())
        # An eighth more than RLIMIT_DATA, which gives the code a MemoryError of its own: this is for what that does not see.
        if anonymous - self.base > self.job.limits.memory * 9 // 8 + 2 * data:
            self._kill(f"it took more than {self.job.limits.memory >> 20} MiB of memory")

    def _by_another_thread(self) -> dict[str, int]:
        """What the system counts for the job by a thread that still has its memory; empty where all of them end.

        A process that ends makes no thread. One whose threads are all new, and gone before they are looked at, hides.
        """
        place = f"/proc/{self.pid}/task"
        try:
            threads = set(os.listdir(place))
        except OSError:
            return {}
        for thread in threads:
            facts = _status(f"{place}/{thread}")
            if "RssAnon" in facts:
                return facts
        if self.ending is not None and threads - self.ending:
            self._kill(HIDES)
        self.ending = threads
        return {}

    def _kill(self, why: str) -> None:
        if not self.why and self.ended is None:
            self.why = why
            self._signal()

    def _signal(self) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def _outcome(self, seconds: float) -> Outcome:
        why, blob = self.why, b""
        error: Mapping[str, Any] | None = None
        touched: Mapping[str, Any] = {}
        status = self.ended["status"] if self.ended else int(signal.SIGKILL)
        if not why:
            try:
                error, touched, blob = parse(bytes(self.out), self.job)
                why = "" if error is None else _explain(error)
            except WireError as fault:
                why, blob = f"it ended without a result ({fault})", b""
        if not self.why and status and os.WIFSIGNALED(status):
            why, blob = _SIGNALS.get(os.WTERMSIG(status), f"it was ended by signal {os.WTERMSIG(status)}"), b""
        elif not self.why and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 99:
            why, blob = "the walls around it could not be put up, so it did not run", b""
        log = self.log.decode("utf-8", "replace")
        if self.flood > len(self.log):
            log += f"\n[{self.flood - len(self.log)} more bytes were printed and dropped]"
        peak = max(self.peak, 0)
        return Outcome(why, b"" if why else blob, log, error, touched, seconds, self.ready, peak)


OTHER_CODE = (
    "the fork server for approved code found other code of Syft Lab than this kernel runs: the package was changed since the "
    "kernel began. Nothing was run; restart the kernel"
)
LOST = "the process that runs code was lost"
HIDES = "it hid its memory from its limit"
_SIGNALS: Mapping[int, str] = {
    signal.SIGXCPU: "it took more CPU time than it may",
    signal.SIGKILL: "it was killed: it took more CPU time or memory than it may",
    signal.SIGSEGV: "it crashed (segmentation fault)",
    signal.SIGABRT: "it crashed (aborted)",
    signal.SIGSYS: "it made a system call of another architecture",
}


def _explain(error: Mapping[str, Any]) -> str:
    if error["result"]:
        return NO_RESULT
    return RAISED


def parse(out: bytes, job: Job) -> tuple[Mapping[str, Any] | None, Mapping[str, Any], bytes]:
    """The report and the checked blob in what a job wrote; raises WireError."""
    length = int.from_bytes(out[1:5], "little")
    if len(out) < 5 or out[:1] != READY or length > MAX_REPORT or 5 + length > len(out):
        raise WireError("no report")
    report = canonical.loads(out[5 : 5 + length], limit=MAX_REPORT)
    if not isinstance(report, dict) or set(report) != {"error", "touched"}:
        raise WireError("a malformed report")
    touched, error = _touched(report["touched"]), report["error"]
    if error is not None:
        if not isinstance(error, dict) or set(error) != {"type", "line", "result"}:
            raise WireError("a malformed report")
        line = error["line"] if type(error["line"]) is int else None
        return {"type": str(error["type"])[:100], "line": line, "result": error["result"] is True}, touched, b""
    blob = out[5 + length :]
    if len(blob) > job.limits.output:
        raise WireError(f"its result is larger than {job.limits.output} bytes")
    values.decode(blob, list(job.returns))
    return None, touched, blob


def _touched(found: Any) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        return {}
    lists = {k: found.get(k) for k in ("modules", "files", "other")}
    return {k: [str(x)[:200] for x in v[:200]] for k, v in lists.items() if isinstance(v, list)}


def _status(place: str) -> dict[str, int]:
    """The numbers that /proc has on a process or thread, memory in KiB; without those of memory where it has none any more."""
    try:
        with open(f"{place}/status") as status:
            lines = [line.partition(":") for line in status]
    except OSError:
        return {}
    words = {name: rest.split() for name, _, rest in lines}
    return {name: int(words[name][0]) for name in (*MEMORY, "Threads") if words.get(name)}


def _pid_of(pidfd: int) -> int:
    """The process of a pidfd as we see it; in another namespace it has another number."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/self/fdinfo/{pidfd}") as facts:
        for line in facts:
            if line.startswith("Pid:"):
                return max(0, int(line.split()[1]))
    return 0
