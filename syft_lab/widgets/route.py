"""Clicks on our widgets are served at once, also while a cell runs.

A click is a ``comm_msg`` on the kernel's shell channel. ipykernel 6 serves it after the running cell; 7.0 to 7.3 serve it
in a subshell where the page knows of those; 7.4 sends it to the shell that last published on the comm, which is the busy
one. `install` looks at messages as they arrive, in the kernel's own channel thread, and hands those of the comms in `mine`,
and comms that a page opens to one of `targets`, to a worker thread. All other messages, other people's widgets among them,
go where they always went.

It leans on internals of ipykernel (``shell_channel_thread``, ``shell_stream``), so that tests/integration/test_route.py
holds it against 7.0.1, 7.3 and the newest; where they are missing it changes nothing and says so. Imports nothing but the
standard library.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

TERMINAL = "decide in a terminal meanwhile: syft-lab requests list"
mine: set[str] = set()  # ids of the comms whose messages never wait
targets: set[str] = set()  # names of targets to which a comm is opened at once


def install(kernel: Any) -> str:
    """Serve the comms in `mine` at once; gives "" or, in words, why that can't be. Again is a no-op."""
    channel = getattr(kernel, "shell_channel_thread", None)
    stream, inner = getattr(kernel, "shell_stream", None), getattr(kernel, "shell_channel_thread_main", None)
    loop = getattr(channel, "io_loop", None)
    if kernel is None:
        return "there is no Jupyter kernel here, so widgets have no buttons"
    if getattr(kernel, "_syft_lab_routed", False):
        return ""
    if channel is None or stream is None or inner is None or loop is None:
        return f"this ipykernel serves clicks only between cells (7.0.1 or newer serves them at once); {TERMINAL}"
    waiting: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

    async def main(frames: Any) -> None:
        if not _is_mine(kernel, frames):
            await inner(frames)
            return
        idents, parts = kernel.session.feed_identities(frames, copy=False)
        try:  # checks the signature, as ipykernel would
            message = kernel.session.deserialize(parts, content=True, copy=False)
        except Exception:
            kernel.log.error("Invalid comm message", exc_info=True)
            return
        waiting.put((idents, message))

    threading.Thread(target=_serve, args=(kernel, waiting), name="syft-clicks", daemon=True).start()
    kernel.shell_channel_thread_main = main
    if getattr(stream, "_recv_callback", None) is not None:  # else the kernel is starting, and will take it by itself
        loop.add_callback(lambda: stream.on_recv(main, copy=False))
    kernel._syft_lab_routed = True
    return ""


def _is_mine(kernel: Any, frames: Any) -> bool:
    """Whether a message, not yet verified, says that it is for one of our comms."""
    try:
        _, parts = kernel.session.feed_identities(frames, copy=False)
        kind = kernel.session.unpack(parts[1].bytes)["msg_type"]
        if kind not in ("comm_msg", "comm_open"):
            return False
        content = kernel.session.unpack(parts[4].bytes)
        if kind == "comm_open" and content["target_name"] in targets:
            mine.add(content["comm_id"])  # what is said on it next may be here before it is open
        return content["comm_id"] in mine
    except Exception:  # whatever it is, ipykernel says what is wrong with it
        return False


def _serve(kernel: Any, waiting: queue.SimpleQueue[tuple[Any, Any]]) -> None:
    while True:
        idents, message = waiting.get()
        try:
            kernel.set_parent(idents, message, channel="shell")
            kernel._publish_status("busy", "shell")
            getattr(kernel.comm_manager, message["header"]["msg_type"])(None, idents, message)
        except Exception:
            kernel.log.error("Exception in a comm handler", exc_info=True)
        finally:
            kernel._publish_status("idle", "shell")
