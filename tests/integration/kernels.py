"""Real kernels in processes of their own, as Jupyter starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from jupyter_client.manager import KernelManager


class CellError(AssertionError):
    """A cell raised; ``name`` is the error's class."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class Kernel:
    """A running IPython kernel. Use it as a context manager."""

    def __init__(self, folder) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), env=dict(os.environ), extra_arguments=["--log-level=ERROR"])
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def start(self, code: str) -> str:
        """Begin a cell and do not wait for it."""
        return self.client.execute(code, stop_on_error=False)  # or cells right after an error are dropped

    def run(self, code: str, timeout: float = 60) -> str:
        """Run a cell; gives what it printed and showed as text. Raises CellError."""
        return self.finish(self.start(code), timeout)

    def finish(self, asked: str, timeout: float = 60) -> str:
        """Wait for a cell that was begun."""
        shown, end = [], time.monotonic() + timeout
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != asked:
                continue
            content, kind = message["content"], message["msg_type"]
            if kind == "stream":
                shown.append(content["text"])
            elif kind in ("display_data", "execute_result", "update_display_data"):
                shown.append(content["data"]["text/plain"])
            elif kind == "error":
                raise CellError(content["ename"], "\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return "\n".join(shown)

    @property
    def pid(self) -> int:
        """The kernel's process."""
        return self.manager.provisioner.pid

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            self.manager.provisioner.process.wait(10)

    def complete(self, code: str) -> list[str]:
        """What Tab would offer at the end of ``code``."""
        reply = self.client.complete(code, reply=True, timeout=20)
        return reply["content"]["matches"]
