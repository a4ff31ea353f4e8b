"""What our sockets are set to, so that nobody on the other side can end their process, stop it, or fill it unseen.

libzmq 4.3.5 ends its process (an assertion) by three roads, all open to the other side, and these settings close them:

- A pipe that is full stops its connection from reading. If the peer is gone when somebody reads again, the next ZMTP
  heartbeat (ours, or a PING of the peer's that still waits) fails in a place that does not expect it. So there are no
  heartbeats of ours, and no high-water mark on what comes in. Who receives counts what waits.
- A DEALER with ``RECONNECT_IVL`` −1 loses its pipe with its peer, perhaps between two frames that are being read. So it has
  an interval that never comes; whoever owns it closes it once it is disconnected.
- A flipped bit can look like a stopped connection where a monitor listens; then heartbeats end the process as above.

In place of heartbeats TCP's keepalive sees a silent peer within 8 s, and ``TCP_MAXRT`` one that owes an acknowledgement. A
stream that stands still while TCP is well is seen by the messages ``alive`` of our own (`wire.link`).
"""

from __future__ import annotations

from typing import Any

import zmq

HANDSHAKE_MS, SILENT_MS = 5000, 8000
KEEPALIVE_IDLE, KEEPALIVE_EVERY, KEEPALIVE_COUNT = 4, 2, 2  # seconds, seconds, probes: 8 s together
NEVER_MS = 600_000
UNREAD_MESSAGES, BACKLOG = 256, 1024


def endure(socket: zmq.Socket[Any]) -> None:
    """Set what every socket has that talks to another machine; before it binds or connects."""
    socket.heartbeat_ivl = 0
    socket.rcvhwm = 0
    socket.handshake_ivl = HANDSHAKE_MS
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle, socket.tcp_keepalive_intvl = KEEPALIVE_IDLE, KEEPALIVE_EVERY
    socket.tcp_keepalive_cnt = KEEPALIVE_COUNT
    socket.setsockopt(zmq.TCP_MAXRT, SILENT_MS)
