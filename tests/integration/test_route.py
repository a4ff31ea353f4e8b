"""Clicks while a cell runs, on the versions of ipykernel that people have: each in a folder before the others on the path."""

import os
import queue
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from syft_lab.widgets import route

CACHE = Path(__file__).parents[2] / ".venv" / "kernels"
SETUP = """
import importlib.util, threading
spec = importlib.util.spec_from_file_location("route", {path!r})
route = importlib.util.module_from_spec(spec); spec.loader.exec_module(route)
from comm import create_comm
kernel = get_ipython().kernel
def handler(comm):
    def heard(message):
        comm.send({{"echo": message["content"]["data"], "thread": threading.current_thread().name}})
    comm.on_msg(heard)
def ours(comm, message):
    route.mine.add(comm.comm_id)
    handler(comm)
kernel.comm_manager.register_target("ours", ours)
kernel.comm_manager.register_target("panel", ours)
route.targets.add("panel")
kernel.comm_manager.register_target("theirs", lambda comm, message: handler(comm))
print("said:", route.install(kernel))
"""
BUSY = {
    "sleep": "import time; time.sleep(3)",
    "loop": "end = __import__('time').monotonic() + 3\nwhile __import__('time').monotonic() < end: pass",
}


def environment(version: str) -> dict[str, str]:
    """What makes a kernel this version, installed once; the newest is the one that runs the tests."""
    if version == "newest":
        return dict(os.environ)
    folder = CACHE / version
    if not (folder / "ready").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade",
                   "--target", str(folder), f"ipykernel=={version}", "nest-asyncio"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        if done.returncode:
            pytest.skip(f"ipykernel {version} can't be installed here: {done.stderr.strip().splitlines()[-1][:200]}")
        (folder / "ready").touch()
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture(params=["7.0.1", "7.3.0", "newest", "6.31.0"])
def kernel(request, tmp_path):
    manager = KernelManager()
    manager._kernel_spec = None
    spec = manager.kernel_spec
    spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    manager.start_kernel(cwd=str(tmp_path), env=environment(request.param))
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    version = run(client, "import ipykernel; print(ipykernel.__version__)").strip()
    assert request.param in ("newest", version)
    yield request.param, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def published(client, timeout: float) -> dict:
    """What the kernel publishes next. Before 7.4, ipykernel now and then leaves a request lying until another comes (its
    issue 1554): so a question about nothing is asked after each second of silence."""
    end = time.monotonic() + timeout
    while True:
        try:
            return client.get_iopub_msg(timeout=1)
        except queue.Empty:
            assert time.monotonic() < end, f"the kernel says nothing for {timeout} s"
            client.kernel_info()


def run(client, code: str) -> str:
    asked, shown = client.execute(code), ""
    while True:
        message = published(client, 30)
        if message["parent_header"].get("msg_id") == asked:
            shown += message["content"].get("text", "")
            assert message["msg_type"] != "error", message["content"]
            if message["content"].get("execution_state") == "idle":
                return shown


def send(client, kind: str, content: dict) -> None:
    client.shell_channel.send(client.session.msg(kind, content))


def answer(client, wanted: str, timeout: float) -> tuple[dict, bool]:
    """The comm message with this echo, and whether the busy cell had ended before it."""
    end, over = time.monotonic() + timeout, False
    while time.monotonic() < end:
        message = published(client, timeout)
        if message["msg_type"] == "comm_msg" and message["content"]["data"].get("echo") == wanted:
            return message["content"]["data"], over
        over = over or message["content"].get("text", "").startswith("cell is over")
    raise AssertionError("no answer")


@pytest.mark.parametrize("how", BUSY)
def test_our_clicks_are_served_while_a_cell_runs(kernel, how):
    version, client = kernel
    said = run(client, SETUP.format(path=route.__file__))
    if version.startswith("6."):
        assert "syft-lab requests" in said
        return
    assert said.strip() == "said:"
    for target in ("ours", "theirs"):
        send(client, "comm_open", {"comm_id": target, "target_name": target, "data": {}})
    run(client, "pass")
    client.execute("print('begun')\n" + BUSY[how] + "\nprint('cell is over')")
    while "begun" not in published(client, 20)["content"].get("text", ""):
        continue
    for i in range(3):
        send(client, "comm_msg", {"comm_id": "ours", "data": f"click {i}"})
        found, over = answer(client, f"click {i}", 20)
        assert not over
        assert found["thread"] == "syft-clicks"
    send(client, "comm_open", {"comm_id": "late", "target_name": "panel", "data": {}})  # a page that was reloaded meanwhile
    send(client, "comm_msg", {"comm_id": "late", "data": "from a new page"})
    assert not answer(client, "from a new page", 20)[1]
    send(client, "comm_msg", {"comm_id": "theirs", "data": "other"})
    found, _ = answer(client, "other", 20)
    assert found["thread"] != "syft-clicks"


def test_without_a_kernel_it_says_so():
    assert "no Jupyter kernel" in route.install(None)
