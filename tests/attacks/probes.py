"""What hostile code tries from inside a job. Run as a program: ``python -m tests.attacks.probes L2|L1|none``.

Prints JSON: for each attempt "stopped", "LEAK", or how the job ended; and what one job leaves for the next (`leftovers`). "none" runs the same attempts in a plain process,
to show that they would succeed without walls. Started as a user other than root where that can be arranged.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from syft_lab.kernel.executor import levels
from syft_lab.kernel.executor.supervisor import Executor, Job, Limits
from tests.attacks import leftovers, reaching

SYSCALLS = "import ctypes; l = ctypes.CDLL(None, use_errno=True)\n"


def attempts(home: Path, owner: int, tcp: int, udp: int, abstract: str) -> dict[str, str]:
    """Cells by what they try. Each prints LEAK if it works. ``owner``: a process with secrets."""
    found = {
        "read a private key": f"print('LEAK', open('{home}/.ssh/id_fake').read())",
        "read the owner's key": f"print('LEAK', open('{home}/owner.key').read())",
        "stat the owner's key": f"import os; print('LEAK', os.stat('{home}/owner.key').st_size)",
        "list the owner's folder": f"import os; print('LEAK', os.listdir('{home}'))",
        "write to the owner's folder": f"open('{home}/pwn', 'w').write('x'); print('LEAK')",
        "write to a temporary folder": "open('/tmp/syft_probe_pwn', 'w').write('x'); print('LEAK')",
        "change a file's mode": f"import os; os.chmod('{home}/owner.key', 0o644); print('LEAK')",
        "remove a file": f"import os; os.unlink('{home}/victim'); print('LEAK')",
        "link a file": f"import os; os.symlink('/etc/passwd', '{home}/link'); print('LEAK')",
        "read /etc/passwd": "print('LEAK', len(open('/etc/passwd').read()))",
        "connect by TCP": f"import socket; socket.create_connection(('127.0.0.1', {tcp}), 2); print('LEAK')",
        "listen on TCP": "import socket; socket.create_server(('127.0.0.1', 0)); print('LEAK')",
        "send by UDP": f"import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {udp})); print('LEAK')",
        "connect to a Unix socket": f"import socket; socket.socket(1).connect('{home}/u.sock'); print('LEAK')",
        "connect to an abstract socket": f"import socket; socket.socket(1).connect({abstract!r}); print('LEAK')",
        "open a netlink socket": "import socket; socket.socket(16, 3, 0); print('LEAK')",
        "make a socket pair": "import socket; socket.socketpair(); print('LEAK')",
        "read another's environment": f"print('LEAK', open('/proc/{owner}/environ').read()[:30])",
        "open another's memory": f"open('/proc/{owner}/mem', 'rb'); print('LEAK')",
        "read another's command line": f"print('LEAK', open('/proc/{owner}/cmdline').read()[:20])",
        "read the environment in /proc": "print('LEAK', open('/proc/self/environ').read()[:60])",
        "find a secret in os.environ": "import os; print('LEAK' if 'OWNER_SECRET' in os.environ else 'none')",
        "attach by ptrace": SYSCALLS + f"print('LEAK' if l.ptrace(16, {owner}, 0, 0) == 0 else 'no')",
        "read another's memory": SYSCALLS
        + "b = ctypes.create_string_buffer(8); a = (ctypes.c_void_p * 2)(ctypes.addressof(b), 8)\n"
        + f"r = (ctypes.c_void_p * 2)(ctypes.addressof(b), 8); n = l.process_vm_readv({owner}, a, 1, r, 1, 0)\n"
        + "print('LEAK' if n == 8 or ctypes.get_errno() != 1 else 'no')",
        "signal another process": f"import os; os.kill({owner}, 0); print('LEAK')",
        "signal the fork server": "import os; os.kill(os.getppid(), 0); print('LEAK')",
        "open a pidfd": f"import os; os.pidfd_open({owner}); print('LEAK')",
        "read another's limits": f"import resource; print('LEAK', resource.prlimit({owner}, resource.RLIMIT_NOFILE))",
        "change another's priority": f"import os; os.setpriority(os.PRIO_PROCESS, {owner}, 1); print('LEAK')",
        "fork": "import os\np = os.fork()\nif p == 0: os._exit(0)\nprint('LEAK')",
        "run a program": "import subprocess; subprocess.run(['/bin/true'], check=True); print('LEAK')",
        "run a program by execve": SYSCALLS
        + "l.execve.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]\n"
        + "a = (ctypes.c_char_p * 3)(b'/bin/echo', b'LE' b'AK', None); l.execve(b'/bin/echo', a, None)",
        "make a user namespace": SYSCALLS + "print('LEAK' if l.unshare(0x10000000) == 0 else 'no')",
        "make a memory file": "import os; os.memfd_create('x'); print('LEAK')",
        "write to shared memory": "open('/dev/shm/syft_probe', 'w').write('1'); print('LEAK')",
        "make SysV shared memory": SYSCALLS + "r = l.shmget(0, 4096, 0o1600); print('LEAK' if r >= 0 else 'no')\n"
        "if r >= 0: l.shmctl(r, 0, 0)",
        "map shared memory": "import mmap; mmap.mmap(-1, 4096); print('LEAK')",
        "keyrings, bpf, perf, io_uring, userfaultfd": SYSCALLS
        + "for n, a in ((250, (0, -3, 0)), (321, (0, 0, 0)), (298, (0, 0, -1)), (425, (4, 0, 0)), (323, (0, 0, 0))):\n"
        + "    r = l.syscall(n, *a)\n    if r >= 0 or ctypes.get_errno() not in (1, 38): print('LEAK', n)",
        "raise a limit": "import resource; resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40)); print('LEAK')",
        "become another user": "import os; os.setuid(65533); print('LEAK')",
        "find files left open": "import os\nfound = []\nfor i in range(3, 1024):\n    try: os.dup(i); found.append(i)\n"
        "    except OSError: pass\nprint('LEAK' if len(found) > 1 else 'one pipe', found)",
        "open a terminal": "import os; os.open('/dev/tty', os.O_RDWR); print('LEAK')",
        "mount a file system": SYSCALLS + f"print('LEAK' if l.mount(b'tmpfs', b'{home}', b'tmpfs', 0, None) == 0 else 'no')",
        "change the root": "import os; os.chroot('/tmp'); print('LEAK')",
        "leave by chdir": f"import os; os.chdir('{home}'); print('LEAK')",
        "make a device": f"import os; os.mknod('{home}/dev', 0o60600, 0x800); print('LEAK')",
        "load a kernel module": SYSCALLS + "l.syscall(175, 0, 0, b''); print('LEAK' if ctypes.get_errno() != 1 else 'no')",
        "set the clock": "import time; time.clock_settime(0, time.time()); print('LEAK')",
        "reboot": SYSCALLS + "l.syscall(169, 0, 0, 0, 0); print('LEAK' if ctypes.get_errno() != 1 else 'no')",
    }
    # A traceback quotes the line that raised; the word must not be in it.
    return {what: code.replace("'LEAK'", "'LE' 'AK'").replace("b'LEAK'", "b'LE' b'AK'") for what, code in found.items()}


class Scene:
    """Things worth stealing, and doors worth trying."""

    def __enter__(self) -> Scene:
        self.home = Path(tempfile.mkdtemp(prefix="syft-probe-"))
        (self.home / ".ssh").mkdir()
        for name in (".ssh/id_fake", "owner.key", "victim"):
            (self.home / name).write_text("SECRET")
        self.stack = contextlib.ExitStack()
        tcp = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = self.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        path, abstract = (self.stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        path.bind(f"{self.home}/u.sock")
        path.listen()
        name = f"\0syft-probe-{os.getpid()}"
        abstract.bind(name)
        abstract.listen()
        wait = ("import sys, threading; t = threading.Thread(target=sys.stdin.read); t.start()\n"
                "print(t.native_id, flush=True); t.join()")  # fmt: skip
        self.decoy = subprocess.Popen([sys.executable, "-I", "-c", wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      env={"OWNER_SECRET": "S3"})  # fmt: skip
        thread = int(self.decoy.stdout.readline())
        os.environ["OWNER_SECRET"] = "S3"
        self.others = (self.decoy.pid, thread)
        self.attempts = attempts(self.home, self.decoy.pid, tcp.getsockname()[1], udp.getsockname()[1], name)
        return self

    def __exit__(self, *_: object) -> None:
        self.decoy.kill()  # an attempt may have stopped it
        self.decoy.wait(10)
        self.decoy.stdin.close()
        self.decoy.stdout.close()
        self.stack.close()


def alone(code: str) -> str:
    """What code prints in a plain process."""
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60).stdout


def told(log: str) -> dict[str, object]:
    """How each attempt of `reaching` went, from what its program printed; raises ValueError where that is something else."""
    through = json.loads(log)
    return {what: "LEAK" if what in through else "stopped" for what in reaching.attempts(0, 0)}


def main(level: str) -> dict[str, object]:
    """Every attempt at a level."""
    found: dict[str, object] = {}
    with Scene() as scene:
        if level == "none":
            for what, code in scene.attempts.items():
                found[what] = "LEAK" if "LEAK" in alone(code) else "stopped"
            found |= told(alone(reaching.program(*scene.others, apart=True)))
            return {"uid": os.getuid(), "level": level, "found": found}
        executor = Executor(levels.probe(level))
        assert executor.level.name == level, executor.level
        try:
            for what, code in scene.attempts.items():
                outcome = executor.run(what, Job(code, {}, [], {}, 1, Limits(wall=20, cpu=10)))
                found[what] = "LEAK" if "LEAK" in outcome.log else "stopped"
                if outcome.ready == 0:
                    found[what] = f"never ran: {outcome.why} {outcome.log}"
            code = reaching.program(*scene.others, apart=False)
            found |= told(executor.run("reach", Job(code, {}, [], {}, 1, Limits(wall=20, cpu=10))).log)
            marks = leftovers.compare(executor)
        finally:
            executor.stop()
    return {"uid": os.getuid(), "level": level, "found": found, "marks": marks}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
