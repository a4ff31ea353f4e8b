"""Messages that are sent without a copy, from several threads.

Their memory is let go by a thread of pyzmq's, which begins with the first such message. Where two threads send their first
at one moment, each can make a context for it (pyzmq 27.3). Then nothing is let go, and after a thousand messages libzmq's own
threads wait for that, for ever: nothing more is sent, and no socket ends. So it begins here, in one thread at a time.
"""

from __future__ import annotations

from threading import Lock

import zmq
import zmq.utils.garbage  # at the first message it would be looked for, where a party may open no file any more

_LOCK = Lock()


def begin() -> None:
    """Begin it, unless it has; each process, also one that was forked, does before its first socket sends."""
    with _LOCK:
        zmq.Frame(b"-", copy=False, copy_threshold=0)
