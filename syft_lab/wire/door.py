"""The door: a process of its own that holds an owner's socket, and runs no user code.

    analysts ── CURVE ──> door ── Unix socket ──> the owner's kernel

A cell can keep the interpreter's lock for a minute, and then nobody in the kernel reads, counts or answers. The door always
does. It ends CURVE, answers ZAP from the list of keys that the kernel gave it, says `alive` for a kernel that computes, counts
what each key has waiting, and cuts off who passes the limits below. What waits for the kernel waits here. If the door dies
the kernel starts another (`zmq_link`); if the kernel dies, the door ends.

A message of the door's own socket to the kernel is a mark and frames:

    up (port or error) · came (connection, key, frames) · gone (connection) · cut (key, why) · admits

and of the kernel's to the door: send (connection, frames) · admits (keys) · bar (key) · end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from syft_lab.wire import codec, messages, numbers, peers, sockets, zerocopy
from syft_lab.wire.numbers import Numbers
from syft_lab.wire.peers import Strangers, received, shut
from syft_lab.wire.rates import OVERHEAD, Bucket, Turns, Waiting

UP, CAME, GONE, CUT, ADMITS, SEND, BAR, END = b"U", b"M", b"G", b"C", b"K", b"S", b"X", b"E"
ALIVE, ALIVE_TOO = b"L", b"Y"
DOMAIN = "syft-lab"
INNER_MESSAGES = 16  # on each side of the Unix socket
CONNECTIONS, ALL_CONNECTIONS = 8, 4096
WAITING, ALL_WAITING, UNTAKEN = 48 << 20, 96 << 20, 20 << 20
HELD, UNREAD, ALL_UNREAD, TRACKED, LOOK_SECONDS = 8 << 20, 48 << 20, 256 << 20, 4096, 0.002  # bytes
RATE, BURST = 2000.0, 4000.0  # messages of a key that are handed on: the rest waits
ARRIVALS, MANY_ARRIVALS = 20_000.0, 40_000.0  # of a key's that come in: beyond, it is cut off
MOST_FRAMES, SKIPPED = 2 * codec.MAX_FRAMES, 5000  # frames of a message that are read; that are dropped at a time
FRAME_OVERHEAD = 200  # bytes that a frame takes beside what is in it
HANDSHAKES, MANY_HANDSHAKES = 20.0, 40.0  # of a key's: beyond, it is cut off without a word, and may try again
BARRED_SECONDS, SWEEP_SECONDS = 2.0, 0.1
SWEPT, IDLE_SECONDS = 100, 1.0  # connections that are looked at so often; more of them, less often
LEAST_FILES, BATCH, LINGER_MS = 1024, 64, 200
FORGOTTEN = 10_000


class Connection:
    """One analyst's connection. ``number`` is what the kernel calls it; ``place`` counts libzmq's connections, of all peers."""

    def __init__(self, number: int, routing: bytes, place: int, key: str, descriptor: int) -> None:
        self.number, self.routing, self.place, self.key, self.descriptor = number, routing, place, key, descriptor
        self.name = number.to_bytes(8, "big")
        self.before, self.taken = 0, 0  # bytes that came until its first message was taken, and since
        self.unread: deque[tuple[zmq.MessageTracker, int]] = deque()
        self.ends = float("inf")


class Door:
    """Between a bound ROUTER and the kernel. `run` returns when the kernel is gone, or says so."""

    def __init__(self, context: zmq.Context[Any], router: zmq.Socket[Any], issued: Numbers, kernel: zmq.Socket[Any], files: int,
                 admitted: Sequence[str]) -> None:  # fmt: skip
        self._router, self._issued, self._kernel = router, issued, kernel
        self._zap: zmq.Socket[Any] = context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._monitor: zmq.Socket[Any] = router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._admitted = set(admitted)
        self._strangers = Strangers(min(peers.STRANGERS, files // 4))
        self._most = min(ALL_CONNECTIONS, files // 2)
        self._turns = Turns(RATE, BURST)
        self._numbers = 0
        self._by_number: dict[int, Connection] = {}
        self._by_routing: dict[bytes, Connection] = {}
        self._by_descriptor: dict[int, Connection] = {}
        self._accepted: dict[int, float] = {}  # when the connection came that has a descriptor now
        self._over: OrderedDict[bytes, None] = OrderedDict()  # routing ids, given by libzmq, of connections that were ended
        self._of_key: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()
        self._held: set[str] = set()  # keys that have to read before they are answered anything more
        self._arrivals: dict[str, Bucket] = {}
        self._handshakes: dict[str, Bucket] = {}
        self._barred: dict[str, float] = {}
        self._revoked: dict[str, float] = {}  # when the kernel ended all connections of a key
        self._notes: deque[Sequence[bytes]] = deque(maxlen=FORGOTTEN)  # for the kernel, ahead of all messages
        self._skipping = False  # what comes next is the rest of a message that is not taken
        self._swept = 0.0
        self._open = True
        self._poller = zmq.Poller()
        for socket in (router, kernel, self._zap, self._monitor):
            self._poller.register(socket, zmq.POLLIN)
        self._poller.register(0, zmq.POLLIN)  # standard input: the kernel's end of it closes with the kernel

    def run(self) -> None:
        """Serve until the kernel says so, or is gone."""
        pause = SWEEP_SECONDS
        while self._open:
            ready = dict(self._poller.poll(max(1, int(pause * 1000))))
            if 0 in ready:
                return
            if self._kernel in ready:
                self._take_orders()
            if self._monitor in ready:
                self._hear_of_connections()
            if self._zap in ready:
                self._admit()
            if self._router in ready:
                self._take_in()
            pause = min(self._let_go(), self._hand_on())
            self._sweep()

    # Who comes, and goes

    def _admit(self) -> None:
        """Answer ZAP (RFC 27): a key that the kernel knows may shake hands, not too often."""
        while True:
            try:
                asked = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            version, request, domain, _, _, mechanism, *credentials = asked
            key = z85.encode(credentials[0]) if mechanism == b"CURVE" and len(credentials) == 1 else b""
            fits = version == b"1.0" and domain == DOMAIN.encode() and key.decode() in self._admitted
            code, text, who = (b"200", b"OK", key) if fits else (b"400", b"unknown key", b"")
            if fits and not self._may_shake_hands(key.decode()):
                code, text, who = b"300", b"", b""
            self._issued.most += code == b"200"  # libzmq numbers no connection before
            self._zap.send_multipart([version, request, code, text, who, b""])

    def _may_shake_hands(self, key: str) -> bool:
        bucket = self._handshakes.get(key)
        if bucket is None:
            bucket = self._handshakes[key] = Bucket(HANDSHAKES, MANY_HANDSHAKES)
        return bucket.take(time.monotonic())

    def _hear_of_connections(self) -> None:
        """Hear all there is: what came of a connection before it could send, or before its descriptor was given again."""
        while True:
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            descriptor, now = event["value"], time.monotonic()
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._accepted[descriptor] = now
                self._strangers.came(descriptor, now)
                continue
            self._accepted.pop(descriptor, None)
            self._strangers.known(descriptor)
            connection = self._by_descriptor.get(descriptor)
            if connection is not None:
                self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        """A connection is over: nothing of it waits any more, and nothing that still comes of it is taken."""
        del self._by_number[connection.number]
        del self._by_routing[connection.routing]
        del self._by_descriptor[connection.descriptor]
        self._end_routing(connection.routing)
        self._of_key[connection.key] -= 1
        self._turns.drop(connection.number)
        self._unread[connection.key] -= sum(size for _, size in connection.unread)
        for counts in (self._of_key, self._unread):
            if not counts[connection.key]:
                del counts[connection.key]
        self._tell([GONE, connection.name])

    def _end_routing(self, routing: bytes) -> None:
        """Take nothing more of a connection to which libzmq gave this id."""
        self._over[routing] = None
        while len(self._over) > FORGOTTEN:
            self._over.popitem(last=False)

    def _cut(self, connection: Connection, why: str) -> None:
        shut(connection.descriptor)
        self._forget(connection)
        self._tell([CUT, connection.key.encode(), why.encode()])

    def _tell(self, frames: Sequence[bytes]) -> None:
        """Tell the kernel before anything else; never waits for it."""
        self._notes.append(frames)

    def _sweep(self) -> None:
        """Strangers who stay, connections that send faster than they are read here, and those whose time is over."""
        now = time.monotonic()
        if now - self._swept < SWEEP_SECONDS * max(1, len(self._by_number) / SWEPT):
            return
        self._swept = now
        self._strangers.sweep(now)
        for connection in list(self._by_number.values()):
            if now > connection.ends:
                self._cut(connection, "too many connections")
            elif received(connection.descriptor) - connection.before - connection.taken > UNTAKEN:
                self._bar(connection.key, now, "it sends more than can be read")

    def _bar(self, key: str, now: float, why: str) -> None:
        """Cut a key off, for a while."""
        self._barred[key] = now + BARRED_SECONDS
        for connection in [c for c in self._by_number.values() if c.key == key]:
            self._cut(connection, why)

    # In

    def _take_in(self) -> None:
        now = time.monotonic()
        for _ in range(BATCH):
            if self._skipping and not self._skip():
                return
            try:
                routing = self._router.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            frames = self._frames()
            try:
                key, descriptor = str(frames[-1].get("User-Id")), int(frames[-1].get(zmq.SRCFD))
            except (zmq.ZMQError, IndexError):
                continue  # no authenticated key, no message
            if self._skipping:
                self._strangers.known(descriptor)
                shut(descriptor)
                self._bar(key, now, "it sends messages of too many frames")
                return
            connection = self._connection(routing.bytes, key, descriptor, now)
            if connection is not None:
                self._take(connection, frames, now)

    def _frames(self) -> list[zmq.Frame]:
        """The frames of a message after its routing id; of a longer one the first `MOST_FRAMES`, and its rest is skipped."""
        frames: list[zmq.Frame] = []
        more = bool(self._router.getsockopt(zmq.RCVMORE))
        while more and len(frames) < MOST_FRAMES:
            frame = self._router.recv(zmq.NOBLOCK, copy=False)
            frames.append(frame)
            more = frame.more
        self._skipping = more
        return frames

    def _skip(self) -> bool:
        """Drop some more frames of a message that is not taken; gives whether that was the last. Others have a turn between."""
        for _ in range(SKIPPED):
            if not self._router.recv(zmq.NOBLOCK, copy=False).more:
                self._skipping = False
                return True
        return False

    def _connection(self, routing: bytes, key: str, descriptor: int, now: float) -> Connection | None:
        """Whose message this is; None for one that is not taken."""
        known = self._by_routing.get(routing)
        if key not in self._admitted:
            shut(descriptor)
            return None
        if known is not None and (known.key, known.descriptor) == (key, descriptor):
            return known
        if routing in self._over:
            return None
        place = self._issued.place(routing)
        if known is not None or place is None:
            self._refuse_id(routing, key, descriptor, now)
            return None
        self._hear_of_connections()
        if not self._is_newest(descriptor, place):
            self._end_routing(routing)
            return None
        self._strangers.known(descriptor)
        if self._accepted[descriptor] <= self._revoked.get(key, 0.0) or self._too_many(key, now):
            shut(descriptor)
            return None
        return self._new(routing, place, key, descriptor, now)

    def _refuse_id(self, routing: bytes, key: str, descriptor: int, now: float) -> None:
        """Cut off who brought an id: it could be meant for somebody else. One that looks like libzmq's is an attack."""
        self._strangers.known(descriptor)
        shut(descriptor)
        if numbers.looks_given(routing):
            self._bar(key, now, "it names itself as only this owner does")

    def _is_newest(self, descriptor: int, place: int) -> bool:
        """Whether a message is of the connection that has its descriptor now; then what had it before is over."""
        if descriptor not in self._accepted:
            return False
        before = self._by_descriptor.get(descriptor)
        if before is not None and before.place > place:
            return False
        if before is not None:
            self._forget(before)
        return True

    def _new(self, routing: bytes, place: int, key: str, descriptor: int, now: float) -> Connection:
        self._numbers += 1
        made = Connection(self._numbers, routing, place, key, descriptor)
        self._by_number[made.number] = self._by_routing[routing] = self._by_descriptor[descriptor] = made
        self._of_key[key] += 1
        made.before = received(descriptor)
        if self._of_key[key] > CONNECTIONS:
            made.ends = now + BARRED_SECONDS
        return made

    def _too_many(self, key: str, now: float) -> bool:
        return now < self._barred.get(key, 0.0) or self._of_key[key] >= 2 * CONNECTIONS or len(self._by_number) >= self._most

    def _take(self, connection: Connection, frames: Sequence[zmq.Frame], now: float) -> None:
        key, size = connection.key, sum(len(f) for f in frames)
        connection.taken += sum(map(_on_the_wire, frames))
        bucket = self._arrivals.get(key)
        if bucket is None:
            bucket = self._arrivals[key] = Bucket(ARRIVALS, MANY_ARRIVALS)
        if not bucket.take(now):
            self._bar(key, now, "too many messages")
        elif connection.ends < float("inf"):
            self._excuse(connection, frames)
        elif len(frames) == 1 and len(frames[0]) == 1 and frames[0].bytes == ALIVE:
            if _runs(os.getppid()):
                self._send(connection, [ALIVE_TOO], 1)
        else:
            size += OVERHEAD + len(frames) * FRAME_OVERHEAD
            self._turns.add(Waiting(key, connection.number, [CAME, connection.name, key.encode(), *frames], size))
            self._check_waiting(key)

    def _check_waiting(self, key: str) -> None:
        """Cut off a connection, the key's with the most waiting, where a key has too much, or all together."""
        most = None
        if self._turns.of(key) > WAITING:
            most = self._turns.heaviest([n for n, c in self._by_number.items() if c.key == key])
        elif self._turns.bytes > ALL_WAITING:
            heaviest = self._turns.heaviest_key()
            most = self._turns.heaviest([n for n, c in self._by_number.items() if c.key == heaviest])
        if most is not None:
            self._cut(self._by_number[most], "too much waits for the owner's kernel")

    def _excuse(self, connection: Connection, frames: Sequence[zmq.Frame]) -> None:
        """Refuse what is asked over one connection too many, which ends soon."""
        id = codec.id_of(frames[1].buffer) if len(frames) > 1 else 0
        if id:
            text = f"{CONNECTIONS} connections of yours are open here; close one of them: session.close()"
            self._send(connection, [b"M", *map(bytes, codec.encode(messages.Refused("busy", text), id))], 0)

    def _hand_on(self) -> float:
        """Hand on what waits, a message of each key in turn; gives the seconds until there is more to do."""
        now = time.monotonic()
        try:
            while self._notes:
                self._kernel.send_multipart(self._notes[0], zmq.NOBLOCK)
                self._notes.popleft()
            for _ in range(BATCH):
                message, pause = self._turns.next(now, self._held)
                if message is None:
                    self._poller.modify(self._kernel, zmq.POLLIN)
                    idle = SWEEP_SECONDS if self._by_number or self._strangers else IDLE_SECONDS
                    return min(pause or idle, idle)
                self._kernel.send_multipart(message.frames, zmq.NOBLOCK, copy=False)
                self._turns.done(message, now)
        except zmq.Again:
            self._poller.modify(self._kernel, zmq.POLLIN | zmq.POLLOUT)
            return SWEEP_SECONDS
        return 0.0

    # Out

    def _take_orders(self) -> None:
        for _ in range(BATCH):
            try:
                mark, *frames = self._kernel.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if mark.bytes == SEND:
                connection = self._by_number.get(int.from_bytes(frames[0].bytes, "big"))
                if connection is None:
                    self._tell([GONE, frames[0].bytes])
                else:
                    self._send(connection, frames[1:], sum(len(f) for f in frames[1:]))
            elif mark.bytes == ADMITS:
                self._admitted = set(json.loads(frames[0].bytes))
                self._tell([ADMITS, frames[1].bytes])
            elif mark.bytes == BAR:
                self._revoke(frames[0].bytes.decode())
            elif mark.bytes == END:
                self._open = False
                return

    def _revoke(self, key: str) -> None:
        """End all connections of a key; those that said nothing yet at their first message, which tells whose they are."""
        self._hear_of_connections()
        self._revoked[key] = time.monotonic()
        for connection in [c for c in self._by_number.values() if c.key == key]:
            self._cut(connection, "")

    def _look_what_left(self, connection: Connection) -> None:
        """libzmq took a frame, for the system, once its tracker is done."""
        while connection.unread and connection.unread[0][0].done:
            self._unread[connection.key] -= connection.unread.popleft()[1]

    def _let_go(self) -> float:
        """Go on with keys whose answers have left; gives the seconds after which to look again."""
        if not self._held:
            return IDLE_SECONDS
        for connection in self._by_number.values():
            if connection.key in self._held:
                self._look_what_left(connection)
        self._held = {key for key in self._held if self._unread[key] > HELD}
        return LOOK_SECONDS if self._held else 0.0

    def _send(self, connection: Connection, frames: Sequence[Any], size: int) -> None:
        """Send an answer. Who does not read is asked to before anything more is answered, and cut off beyond `UNREAD`."""
        self._look_what_left(connection)
        if self._unread[connection.key] + size > UNREAD:
            self._cut(connection, "it does not read its answers")
            return
        *head, last = frames
        if size >= TRACKED:
            last = zmq.Frame(last.buffer, track=True, copy=False, copy_threshold=0)
        try:
            self._router.send_multipart([connection.routing, *head, last], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self._cut(connection, "it does not read its answers")
        except zmq.ZMQError:
            self._forget(connection)
        else:
            if size >= TRACKED:
                connection.unread.append((last.tracker, size))
                self._unread[connection.key] += size
                self._check_unread(connection.key)

    def _check_unread(self, key: str) -> None:
        """Hold a key that has much to read; where all together have too much, cut off the one with the most."""
        if self._unread[key] > HELD:
            self._held.add(key)
        if self._unread.total() <= ALL_UNREAD:
            return
        for connection in self._by_number.values():
            self._look_what_left(connection)
        if self._unread.total() > ALL_UNREAD:
            heaviest = max(self._unread, key=lambda k: self._unread[k])
            for connection in [c for c in self._by_number.values() if c.key == heaviest]:
                self._cut(connection, "it does not read its answers, and those of all take too much memory")


def _on_the_wire(frame: zmq.Frame) -> int:
    """Bytes of a frame in ZMTP and CURVE."""
    body = len(frame) + 33
    return body + (2 if body < 256 else 9)


def _runs(process: int) -> bool:
    """Whether a process is not stopped (by a signal, or a debugger); one that computes runs. Linux says; elsewhere True."""
    try:
        with open(f"/proc/{process}/stat", "rb") as told:
            return told.read().rpartition(b")")[2].split()[0] not in (b"T", b"t")
    except (OSError, IndexError):
        return True


def _listen(router: zmq.Socket[Any], host: str, ports: Sequence[int]) -> int:
    """Bind the first port that is free (0: any); raises ZMQError of the last."""
    for port in ports:
        try:
            router.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE and port != ports[-1]:
                continue
            raise
        break
    return int(router.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])


def _files() -> int:
    """Raise the limit of open files to what this user may have; gives it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says infinity, and takes less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def _end_with(parent: int) -> None:
    """End when the kernel does, also where another child of it keeps our standard input open."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(0)


def main() -> None:
    """Read what to do from standard input, one line of JSON, and serve."""
    given = json.loads(sys.stdin.buffer.readline())
    _end_with(given["parent"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it holds the owner's key
    zerocopy.begin()
    context: zmq.Context[Any] = zmq.Context()
    router, issued = numbers.numbered_router(context)
    kernel: zmq.Socket[Any] = context.socket(zmq.PAIR)
    kernel.sndhwm = kernel.rcvhwm = INNER_MESSAGES
    kernel.connect(given["inner"])
    sockets.endure(router)
    router.handshake_ivl = given["handshake_ms"]
    router.sndhwm, router.backlog, router.linger = sockets.UNREAD_MESSAGES, sockets.BACKLOG, LINGER_MS
    router.maxmsgsize = given["max_frame"]
    router.curve_server, router.curve_secretkey = True, given["secret"].encode()
    router.zap_domain = DOMAIN.encode()
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    files = _files()
    door = Door(context, router, issued, kernel, files, given["admits"])
    told: dict[str, Any] = {"token": given["token"]}
    try:
        if files < LEAST_FILES:
            told["error"] = f"this system allows {files} open files, and an owner needs {LEAST_FILES}: raise ulimit -n"
        else:
            told["port"] = _listen(router, given["host"], given["ports"])
    except zmq.ZMQError as error:
        told |= {"error": str(error.strerror), "errno": error.errno}
    kernel.send_multipart([UP, json.dumps(told).encode()])
    door.run()
    router.disable_monitor()
    kernel.close(linger=0)
    router.close()
    context.destroy(linger=LINGER_MS)  # answers on their way go out
    os._exit(0)
