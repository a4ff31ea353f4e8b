"""Neither kernel can be ended, stopped or filled from outside: each way to do it that libzmq has, tried on the product.

Whoever attacks has a key that is admitted, and is a process of its own, for what it does would end this one. ``SYFT_LAB_LONG=60``
holds the lock, and flips bits, for a minute.
"""

import contextlib
import os
import random
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

import syft_lab as lab
from syft_lab import errors
from syft_lab.identity import Keys
from syft_lab.kernel import machine, service
from syft_lab.kernel.tensors import Seat
from syft_lab.wire import codec, door
from syft_lab.wire import messages as m

LONG = float(os.environ.get("SYFT_LAB_LONG", "0"))

# An owner that holds its interpreter's lock, as some cells do, from a line on its standard input until a byte in a pipe.
HOSPITAL = """
import ctypes, sys, numpy as np, pandas as pd, syft_lab as lab
free, proxy = int(sys.argv[1]), sys.argv[2]
owner = lab.Owner.start("hospital", advertise=f"127.0.0.1:{proxy}" if proxy != "0" else None)
owner.publish(pd.DataFrame({"age": np.arange(2000) % 90}), "patients", privacy_unit="row", bounds={"age": (0, 110)}, budget=lab.Budget(99.0))
owner.policy.allow("dp", dataset="patients", epsilon_per_query=1)
for name in ("alice", "bob", "carol", "dora"): owner.invite(name, budgets={"patients": 40.0}, path=f"{name}.syft")
print(owner._service._server.door, owner.listens.rpartition(":")[2], flush=True)
byte = ctypes.create_string_buffer(1)
for line in sys.stdin:
    if line == "door\\n":
        print(owner._service._server.door, flush=True)
        continue
    print("held", flush=True)
    ctypes.PyDLL(None).read(free, byte, 1)
    print("free", owner._service._server.door, flush=True)
"""

# Somebody with alice's key. PINGs of ZMTP are what libzmq answers in the middle of what it does.
ATTACKER = """
import sys, time, zmq
what, port, server, public, secret = sys.argv[1:]
context = zmq.Context()
def dealer(**options):
    s = context.socket(zmq.DEALER)
    s.linger, s.reconnect_ivl = 0, -1
    s.curve_serverkey, s.curve_publickey, s.curve_secretkey = server.encode(), public.encode(), secret.encode()
    for name, value in options.items(): setattr(s, name, value)
    s.connect(f"tcp://127.0.0.1:{port}")
    return s
from syft_lab.wire import codec, messages as m
def ping(n, size=200): return [b"M", *codec.encode(m.Ping([b"x" * size]), n)]
if what == "vanish":
    s = dealer(sndhwm=100000, heartbeat_ivl=1, heartbeat_timeout=60000)
    for i in range(6000):
        s.send_multipart(ping(i + 1))
        i % 20 or time.sleep(.0011)
    time.sleep(.3)
elif what == "big":
    s = dealer(sndhwm=8, sndtimeo=1000)
    try:
        for i in range(400): s.send_multipart(ping(i + 1, 1 << 20))
    except zmq.ZMQError: pass
elif what == "twin":  # two connections with one routing id: libzmq never reads the second
    a, b = (dealer(sndhwm=6000, sndtimeo=1000, routing_id=b"twin", heartbeat_ivl=1, heartbeat_timeout=60000) for _ in range(2))
    a.send_multipart(ping(1))
    time.sleep(.2)
    try:
        for i in range(6000):
            b.send_multipart(ping(i + 1))
            i % 20 or time.sleep(.0011)
    except zmq.ZMQError: pass
elif what == "kept":  # the same, and what the second sends is kept
    a, b = (dealer(sndhwm=4, sndtimeo=1000, routing_id=b"twin") for _ in range(2))
    a.send_multipart(ping(1))
    time.sleep(.2)
    try:
        for i in range(400): b.send_multipart(ping(i + 1, 1 << 20))
    except zmq.ZMQError: pass
elif what == "deaf":
    some = [dealer(rcvhwm=1, rcvbuf=4096, sndhwm=4000) for _ in range(6)]
    for i in range(150):
        for s in some: s.send_multipart(ping(i + 1, 64 << 10))
        time.sleep(.002)
    time.sleep(1)
elif what == "owner":  # a hostile owner, who floods whoever connects
    s = context.socket(zmq.ROUTER)
    s.linger, s.sndhwm, s.heartbeat_ivl, s.heartbeat_timeout = 0, 100000, 1, 60000
    s.curve_server, s.curve_secretkey = True, secret.encode()
    print(s.bind_to_random_port("tcp://127.0.0.1"), flush=True)
    who = s.recv_multipart()[0]
    sys.stdin.readline()
    pong = [b"M", *codec.encode(m.Pong([b"x" * 200]), 1 << 40)]  # it answers nothing, and is read over
    for i in range(6000):
        s.send_multipart([who, *pong])
        i % 20 or time.sleep(.0011)
    time.sleep(.3)
print("sent", flush=True)
time.sleep(60)
"""

# An analyst with the product's link, whose cell holds the lock while the owner floods it and vanishes.
ANALYST = """
import asyncio, ctypes, sys
from syft_lab.errors import LabError
from syft_lab.identity import Keys
from syft_lab.wire.link import Client
from syft_lab.wire.messages import Ping
from syft_lab.wire.zmq_link import ZmqTransport
async def main():
    client = Client(await ZmqTransport.connect(f"127.0.0.1:{sys.argv[1]}", sys.argv[2], Keys.generate(), 20))
    asked = asyncio.create_task(client.request(Ping(), 60))
    await asyncio.sleep(.1)
    print("connected", flush=True)
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)
    try: await asked
    except LabError: print("lost", flush=True)
asyncio.run(main())
"""

# An analyst who asks all the time, over a network that flips bits.
ASKER = """
import sys, time, syft_lab as lab
session = lab.connect("bob.syft", timeout=8)
print("connected", flush=True)
end, longest, answers = time.monotonic() + float(sys.argv[1]), 0.0, 0
while time.monotonic() < end:
    asked = time.monotonic()
    try:
        session.budget() if answers % 2 else session["patients"].count().release(epsilon=.1).value
        answers += 1
    except lab.errors.LabError as error: print(type(error).__name__, str(error)[:100], file=sys.stderr)
    longest = max(longest, time.monotonic() - asked)
print(answers, longest, session.budget().spent["patients"], flush=True)
"""


class Hospital:
    """The owner's kernel, and its door."""

    def __init__(self, proxy=0):
        self._free, self._frees = os.pipe()
        self.process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", HOSPITAL, str(self._free), str(proxy)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[self._free])  # fmt: skip
        self.door, self.port = map(int, self.process.stdout.readline().split())
        self._first = resident(self.process.pid) + resident(self.door)

    @contextlib.contextmanager
    def held(self):
        """The interpreter's lock is held."""
        self.process.stdin.write("hold\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            os.write(self._frees, b"x")
            said = self.process.stdout.readline()
        assert said == f"free {self.door}\n", f"the kernel, or its door, ended: {self.process.poll()}"

    def another_door(self):
        """End the door, and wait until there is another."""
        before = self.door
        os.kill(before, signal.SIGKILL)
        end = time.monotonic() + 20
        while self.door in (0, before) or not self.listens():
            assert time.monotonic() < end
            time.sleep(0.05)
            self.door = self.asked_door()

    def listens(self):
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def asked_door(self):
        """The door that the kernel has now."""
        self.process.stdin.write("door\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def alive(self):
        """Whether the kernel runs, and its first door too."""
        return self.process.poll() is None and os.path.exists(f"/proc/{self.door}")

    def grown(self):
        """Megabytes that both have more than at first; of the door, the most that it ever had."""
        return resident(self.process.pid) + resident(self.door, "VmHWM") - self._first

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        os.close(self._free)
        os.close(self._frees)


def resident(process, what="VmRSS"):
    with open(f"/proc/{process}/status") as lines:
        return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(what))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A state folder that the tests of this file share."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("network")
        patch.setenv("SYFT_LAB_HOME", str(folder / "state"))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def hospital(place):
    started = Hospital()
    yield started
    started.close()


@pytest.fixture(scope="module")
def people(hospital):
    """Alice, whose key the attackers have, and bob."""
    with lab.connect("alice.syft", alias="alice") as alice, lab.connect("bob.syft", alias="bob") as bob:
        yield alice, bob


@contextlib.contextmanager
def attacker(what, port, server, public, secret):
    """Somebody who does it, until they are killed."""
    process = subprocess.Popen([sys.executable, "-c", ATTACKER, what, str(port), server, public, secret], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def attacked(what, hospital, alice):
    """Do it to the owner with alice's key, and vanish."""
    with attacker(what, hospital.port, alice._trust.curve_keys[0], alice._keys.public.curve, alice._keys.curve_secret) as they:
        assert they.stdout.readline() == "sent\n"


def raw(session, connected=True, **options):
    """A socket with a session's keys."""
    made = zmq.Context.instance().socket(zmq.DEALER)
    made.linger, made.rcvtimeo = 0, 20000
    for name, value in options.items():
        setattr(made, name, value)
    made.curve_serverkey = session._trust.curve_keys[0].encode()
    made.curve_publickey, made.curve_secretkey = session._keys.public.curve.encode(), session._keys.curve_secret.encode()
    if connected:
        made.connect(f"tcp://{session._trust.addresses[0]}")
    return made


def typical(session):
    return statistics.median(session.ping() for _ in range(40))


@pytest.mark.parametrize("what", [*["vanish"] * 5, "big"])
def test_a_kernel_whose_lock_is_held_lives_through_a_flood(hospital, people, what):
    alice, bob = people
    bob.ping()
    before = typical(bob)
    with hospital.held():
        end = time.monotonic() + LONG
        while True:
            attacked(what, hospital, alice)
            with raw(bob) as quick:  # alive is said without the lock
                quick.send(door.ALIVE)
                assert quick.recv() == door.ALIVE_TOO
            assert hospital.grown() < 200
            if time.monotonic() >= end:
                break
    assert hospital.alive()
    for _ in range(5):  # other things run on this machine
        bob.ping()
        if typical(bob) < 2 * before + 0.001:
            break
    else:
        pytest.fail("others wait twice as long as before")


@pytest.mark.parametrize("what", [*["twin"] * 4, "kept", "deaf"])
def test_an_owner_that_reads_lives_through_what_one_analyst_does(hospital, people, what):
    alice, bob = people
    attacked(what, hospital, alice)
    assert hospital.grown() < 200
    bob.ping()
    assert hospital.alive()


@pytest.mark.parametrize("_", range(4))
def test_an_analyst_lives_through_an_owner_who_floods_and_vanishes(_):
    keys = Keys.generate()
    with attacker("owner", 0, "-", "-", keys.curve_secret) as owner:
        port = owner.stdout.readline().strip()
        analyst = subprocess.Popen([sys.executable, "-c", ANALYST, port, keys.public.curve], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        assert analyst.stdout.readline() == "connected\n"
        owner.stdin.write("go\n")
        owner.stdin.flush()
        assert owner.stdout.readline() == "sent\n"
    said, failed = analyst.communicate("x", timeout=30)
    assert (analyst.returncode, said) == (0, "lost\n"), failed[-300:]


class Flipping:
    """A road to the owner on which a bit flips now and then, both ways, once ``on`` is set."""

    EVERY = 0.7  # seconds

    def __init__(self):
        self.on, self.flips, self.port = False, 0, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.at = self._server.getsockname()[1]
        self._next = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self.port))
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(a, b), daemon=True).start()

    def _pass_on(self, a, b):
        with contextlib.suppress(OSError):
            while data := bytearray(a.recv(65536)):
                if self.on and len(data) > 60 and time.monotonic() > self._next:
                    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
                    self.flips, self._next = self.flips + 1, time.monotonic() + self.EVERY
                b.sendall(data)
        for each in (a, b):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self):
        self._server.close()


def test_flipped_bits_end_nobody_and_no_wait_is_long(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFT_LAB_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    road = Flipping()
    owner = Hospital(road.at)
    road.port = owner.port
    try:
        asker = subprocess.Popen([sys.executable, "-W", "ignore", "-c", ASKER, str(LONG or 8)], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        assert asker.stdout.readline() == "connected\n"
        road.on = True
        threading.Timer(LONG or 8, setattr, (road, "on", False)).start()
        said, failed = asker.communicate(timeout=60 + LONG)
        assert asker.returncode == 0, failed[-500:]
        answers, longest, spent = map(float, said.split())
        print(f"{road.flips} flips, {answers:g} answers, the longest wait {longest:.1f} s")
        assert road.flips
        assert answers
        assert longest < 10, failed[-500:]  # 8 s of silence at most, and a dial
        assert spent == pytest.approx(0.1)  # the same question, paid once
        assert owner.alive()
    finally:
        owner.close()
        road.close()


def test_more_connections_than_a_key_may_have_are_told_so(hospital, people):
    alice, _ = people
    alice.reconnect()  # the floods before may have cut it
    some = [raw(alice) for _ in range(door.CONNECTIONS)]
    try:
        refused = 0
        for i, one in enumerate(some):
            one.send_multipart([b"M", *codec.encode(m.Ping(), i + 1)])
            reply = codec.decode(one.recv_multipart()[1:])[0]
            refused += isinstance(reply, m.Refused) and reply.code == errors.BusyError.code
        assert refused == 1  # alice's own session is one
    finally:
        for one in some:
            one.close()
    alice.ping()


def test_strangers_hold_few_places_and_take_none_of_the_kernels_files(hospital, people):
    _, bob = people
    files = len(os.listdir(f"/proc/{hospital.process.pid}/fd"))
    strangers = [socket.create_connection(("127.0.0.1", hospital.port)) for _ in range(300)]
    try:
        end = time.monotonic() + 20
        while len(os.listdir(f"/proc/{hospital.door}/fd")) > 128 + 100:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert len(os.listdir(f"/proc/{hospital.process.pid}/fd")) < files + 20
        bob.reconnect()
        assert bob["patients"].count().release(epsilon=0.1).value > 0
    finally:
        for one in strangers:
            one.close()


def test_a_revocation_ends_a_connection_at_once(owner, session):
    with raw(session) as mine, raw(session) as watch:
        monitor = mine.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        for one in (mine, watch):
            one.send_multipart([b"M", *codec.encode(m.Ping(), 1)])
            one.recv_multipart()
        owner.revoke("alice")
        assert monitor.poll(5000)
        mine.disable_monitor()
        monitor.close(linger=0)
    with pytest.raises(errors.RefusedError, match="revoked"):
        session.ping()


def test_a_revocation_ends_a_connection_that_said_nothing_yet(owner, session):
    with raw(session, connected=False, reconnect_ivl=-1, rcvtimeo=500) as quiet:
        with quiet.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:  # before it can hear of it
            quiet.connect(f"tcp://{session._trust.addresses[0]}")
            heard = monitor.poll(20_000)
            quiet.disable_monitor()
        assert heard
        owner.revoke("alice")
        quiet.send(door.ALIVE)
        with pytest.raises(zmq.Again):
            quiet.recv()
    with pytest.raises(errors.RefusedError, match="revoked"):  # a new one is told why
        session.ping()


def test_a_question_that_finds_no_file_to_open_costs_nothing(owner, session, monkeypatch):
    session.budget()
    opened = os.open

    def none_left(path, *given, **more):
        if path == os.devnull:
            raise OSError(24, "too many open files")
        return opened(path, *given, **more)

    monkeypatch.setattr(machine.os, "open", none_left)
    with pytest.raises(errors.BusyError, match="nothing was spent"):
        session["patients"].count().release(epsilon=0.1).get(30)
    monkeypatch.undo()
    gauge = owner.budgets.gauges[0]
    assert (gauge.spent, gauge.reserved) == (0.0, 0.0)
    assert session["patients"].count().release(epsilon=0.1).value is not None


def test_nobody_files_faster_than_people_do(owner, session, monkeypatch):
    monkeypatch.setattr(service, "FILED_AT_ONCE", 3)
    cell = lab.cell.Cell("m = 1", (("patients", 1),), ("m",), {}, "")
    first = [session.file(cell) for _ in range(2)]
    first[0].comment("please")
    for ask in (lambda: session.file(cell), first[0].cancel, lambda: first[1].comment("soon"), session.rotate_keys):
        with pytest.raises(errors.BusyError, match="try again in 1 s"):
            ask()
    assert session["patients"].count().release(epsilon=0.1).value is not None


def test_nobody_writes_more_to_the_journal_than_people_do(owner, session, monkeypatch):
    """Text and keys are kept for ever, and nobody approves them."""
    monkeypatch.setattr(service, "TEXT_AT_ONCE", 3000)
    monkeypatch.setattr(service, "ROTATED_AT_ONCE", 2)
    code = "m = 1" + 1500 * " "
    first = session.file(lab.cell.Cell(code, (("patients", 1),), ("m",), {}, ""))
    with pytest.raises(errors.BusyError, match="2 KiB a second: try again in 1 s"):
        session.file(lab.cell.Cell(code, (("patients", 1),), ("m",), {}, ""))
    first.comment("please")
    for _ in range(2):
        session.rotate_keys()
    with pytest.raises(errors.BusyError, match="once an hour"):
        session.rotate_keys()


def test_more_memory_than_the_machine_has_is_promised_to_nobody(owner, session, monkeypatch):
    """Four sessions of 4 GiB on a machine of 8."""
    monkeypatch.setattr(machine, "memory", lambda: 8 << 30)
    tensors, begun = owner._tensors, ("zoe", secrets.token_hex(16))
    monkeypatch.setattr(tensors, "_room", owner._room())
    tensors._check_room(4 << 30)
    tensors._seats[begun] = Seat("zoe", lambda: None, memory=4 << 30)
    for _ in range(3):
        with pytest.raises(errors.BusyError, match="may take 4 GiB here, of 6.4 GiB .* 4 GiB are promised"):
            session._ask(m.Put(secrets.token_hex(16), 1, 1, "uint8", [1], 0, [b"x"]), m.Ran)
    tensors._drop(begun, "it ended")
    tensors._check_room(4 << 30)


UNSEEDED = 0x6B8B4567  # what rand() says first where nobody seeded it


def ended(one, seconds=5):
    """Whether a raw socket's connection is ended."""
    with one.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
        try:
            return bool(monitor.poll(1000 * seconds))
        finally:
            one.disable_monitor()


@contextlib.contextmanager
def several(*made):
    try:
        yield made
    finally:
        for one in made:
            one.close()


def check_all_are_served(analyst):
    """As many new connections as a key may have besides its session's are answered."""
    with several(*(raw(analyst, reconnect_ivl=-1, rcvtimeo=5000) for _ in range(door.CONNECTIONS - 1))) as connections:
        for one in connections:
            one.send(door.ALIVE)
        assert {one.recv() for one in connections} == {door.ALIVE_TOO}


@pytest.mark.parametrize("_", range(3))
def test_nobody_plants_the_number_that_the_next_connection_gets(hospital, people, _):
    alice, bob = people
    hospital.another_door()
    ids = [(UNSEEDED + i).to_bytes(5, "big") for i in range(1, 25)]
    with several(*(raw(alice, routing_id=id, reconnect_ivl=-1, rcvtimeo=3000) for id in ids)):
        time.sleep(0.2)  # what was planted says nothing, so that nothing can be waited for
        check_all_are_served(bob)
    assert hospital.asked_door() == hospital.door


def test_who_names_itself_as_only_libzmq_does_is_cut_off_and_shuts_nobody_out(hospital, people):
    _, bob = people
    hospital.another_door()
    carol = lab.connect("carol.syft", alias="carol")
    ids = [(UNSEEDED + i).to_bytes(5, "big") for i in range(1, 9)]
    with carol, several(*(raw(carol, routing_id=id, reconnect_ivl=-1, rcvtimeo=300) for id in ids)) as planted:
        for one in planted:
            one.send(door.ALIVE)
        assert ended(planted[0])
        for one in planted:
            with pytest.raises(zmq.Again):
                one.recv()
        check_all_are_served(bob)
    assert hospital.asked_door() == hospital.door


def test_a_key_shakes_hands_only_so_often(hospital, people):
    _, bob = people
    with lab.connect("dora.syft", alias="dora") as dora, contextlib.ExitStack() as open_ones:
        began, some = time.monotonic(), []
        for _ in range(70):
            one = open_ones.enter_context(raw(dora, reconnect_ivl=-1))
            some.append(open_ones.enter_context(one.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)))
            open_ones.callback(one.disable_monitor)
        bob.reconnect()
        events = [parse_monitor_message(one.recv_multipart())["event"] for one in some if one.poll(3000)]
        allowed = door.MANY_HANDSHAKES + door.HANDSHAKES * (time.monotonic() - began)
        assert 0 < events.count(zmq.EVENT_HANDSHAKE_SUCCEEDED) <= allowed
        assert zmq.EVENT_DISCONNECTED in events


def test_a_message_of_very_many_frames_is_read_over_and_ends_its_connection(hospital, people):
    _, bob = people
    hospital.another_door()
    with lab.connect("carol.syft", alias="carol") as carol, raw(carol, reconnect_ivl=-1, sndhwm=0) as one:
        one.send(door.ALIVE)
        assert one.recv() == door.ALIVE_TOO
        bob.ping()
        before, kernel = resident(hospital.door), resident(hospital.process.pid)
        one.send_multipart([b"M"] + 200_000 * [b""])
        assert ended(one, 15)
        began = time.monotonic()
        bob.ping()
        assert time.monotonic() - began < 4
        assert resident(hospital.door, "VmHWM") - before < 100
        assert resident(hospital.process.pid) - kernel < 50
    assert hospital.asked_door() == hospital.door
