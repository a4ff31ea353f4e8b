"""The warm fork server: imports what cells use, once, and forks a locked-down child for each job.

Run by `origin.command` with the number of its control socket, by exec and with a clean environment, so that it never held
a key or a row of the owner. It says by a digest which code of Syft Lab it runs. It has one thread, so that forking is safe. It
ends when the control socket does, and its jobs end with it. A job arrives as one packet with the files [job, out, log, spec,
data…]; on the socket ``job`` the server answers with a pidfd, and when the child is gone, with how it ended.
"""

from __future__ import annotations

import array
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from typing import Any

from syft_lab.kernel.executor import guard, mapping, origin
from syft_lab.kernel.executor.job import child

NICE = 5  # the owner's kernel comes first
# Imported before any job, because at L1 no file can be opened later, and because each first use costs.
MODULES = (
    "bisect calendar collections concurrent.futures copy csv dataclasses datetime decimal enum fractions functools "
    "heapq io itertools json linecache math operator queue random re statistics string textwrap threading time "
    "traceback typing unicodedata uuid warnings zoneinfo encodings.idna lzma bz2 hashlib contextlib numpy "
    "numpy.random numpy.linalg numpy.fft numpy.polynomial numpy.ma pandas pandas.api.types pyarrow pyarrow.compute "
    "scipy scipy.stats scipy.optimize scipy.linalg scipy.sparse scipy.special scipy.signal scipy.interpolate sklearn "
    "sklearn.linear_model sklearn.ensemble sklearn.metrics sklearn.model_selection sklearn.preprocessing "
    "sklearn.pipeline sklearn.compose sklearn.impute sklearn.cluster sklearn.tree sklearn.svm sklearn.neighbors "
    "sklearn.decomposition sklearn.naive_bayes sklearn.dummy sklearn.feature_selection sklearn.neural_network "
    "sklearn.calibration sklearn.inspection sklearn.mixture sklearn.gaussian_process sklearn.isotonic torch torch.nn "
    "torch.nn.functional torch.optim torch.utils.data torch.linalg torch.fft torch.distributions torch.func "
    "torch._dynamo"
).split()


def preload() -> Any:
    """Import and use the packages once; gives the controller of thread pools, where scikit-learn brought one."""
    for name in MODULES:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": ["x", "y", "x", "y"]})
    frame.groupby("b").a.mean(), frame.merge(frame, on="b"), str(frame.describe()), frame.b.str.upper()
    pd.Timestamp("2024-01-01", tz="Europe/Berlin"), np.linalg.inv(np.eye(2))
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_num_threads(1)
        layer = torch.nn.Linear(2, 2)
        optimiser = torch.optim.Adam(layer.parameters())
        if not torch.backends.cuda.is_built():  # else both look for a GPU: the driver starts a thread, and survives no fork
            layer(torch.ones(1, 2)).sum().backward()
            optimiser.step()
        torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2))
        for name in ("runner", "joint", "trial"):
            importlib.import_module(f"syft_lab.kernel.executor.{name}")
    if "sklearn" in sys.modules:
        from sklearn.linear_model import LogisticRegression

        LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    if importlib.util.find_spec("threadpoolctl") is None:
        return None
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def serve(control: socket.socket) -> None:
    """Boot, say so, and fork until the control socket closes."""
    os.nice(NICE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threadpools = preload()
        import pyseccomp  # noqa: F401 - looks for its library with a subprocess, which a job can't have
    running = len(os.listdir("/proc/self/task"))
    if running != 1:
        raise SystemExit(f"the fork server has {running} threads; a fork would not be safe")
    mapping.unshare()
    readable = [*guard.readable_paths(), "/proc/cpuinfo", "/proc/meminfo"]
    readable = [p for p in readable if os.path.exists(p)]
    gc.collect()
    gc.freeze()
    control.send(b"up " + origin.digest().encode())
    jobs: dict[int, tuple[int, socket.socket]] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), *jobs], [], [])
        for source in ready:
            if source in jobs:
                _report(source, *jobs.pop(source))
            elif not _fork(control, jobs, readable, threadpools):
                return


def _fork(control: socket.socket, jobs: dict[int, tuple[int, socket.socket]], readable: list[str], threadpools: Any) -> bool:
    """Take a job and fork its child; False when the owner is gone."""
    packet, ancillary, _, _ = control.recvmsg(16, socket.CMSG_SPACE(32 * 4))
    if not packet:
        return False
    fds = array.array("i")
    for _, _, received in ancillary:
        fds.frombytes(received)
    job = socket.socket(fileno=fds[0])
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            guard.detach(server)
            code = child(fds[1:], readable, threadpools)
        except BaseException:
            traceback.print_exc()  # to the log, once it stands; the walls could not be put up
        finally:
            os._exit(code)
    for fd in fds[1:]:
        os.close(fd)
    watch = os.pidfd_open(pid)
    jobs[watch] = (pid, job)
    try:
        job.sendmsg([b"began"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [watch]))])
    except OSError:  # nobody waits for it any more
        signal.pidfd_send_signal(watch, signal.SIGKILL)
    return True


def _report(watch: int, pid: int, job: socket.socket) -> None:
    _, status, usage = os.wait4(pid, 0)
    os.close(watch)
    with job:
        try:
            ended = {"status": status, "peak": usage.ru_maxrss << 10, "cpu": usage.ru_utime + usage.ru_stime}
            job.send(json.dumps(ended).encode())
        except OSError:
            return


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
