"""Three parties as three processes over CURVE: what they compute, and what happens when one dies, hangs, lies about its key, or the wire is bent."""

import multiprocessing as mp
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
import torch
import torch.nn as nn

from syft_lab.errors import PartnerError
from syft_lab.identity import Keys
from syft_lab.mpc import sharing
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.links import Mesh
from syft_lab.mpc.party import join
from syft_lab.mpc.share import Share
from syft_lab.mpc.tensor import run as run_shares
from tests.parties import FRACTION, NAMES, K

PATIENCE = 30.0  # of parties that begin, on a busy machine


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 5),
                         nn.Softmax(1)).eval()  # fmt: skip


def party(pipe, index, secrets, publics, patience, dies_at):
    """One process: connects, waits for its shares, runs the network on them, says how it went."""
    torch.set_num_threads(1)
    mesh = Mesh(index, Keys(*secrets), NAMES).expect(publics)
    pipe.send(mesh.ports)
    addresses = pipe.recv()
    try:
        links = mesh.connect(addresses, timeout=patience)
        pipe.send("up")
        while (work := pipe.recv()) is not None:
            me = join(index, NAMES, links, timeout=patience)
            if dies_at is not None:
                _die_at(me, dies_at, pipe)
            try:
                fixed = Fixed(me, FRACTION, K)
                shares = [Share(Shared(*s), fixed) for s in work[0]]
                names = list(dict(net().named_parameters())) + [n for n, b in net().named_buffers() if b.is_floating_point()]
                made = run_shares(net(), shares[0], parameters=dict(zip(names, shares[1:], strict=True)))
                pipe.send(("made", made.shared.own, made.shared.other, me.online.messages))
            except PartnerError as error:
                me.close()
                pipe.send(("failed", str(error), time.monotonic()))
    except PartnerError as error:
        pipe.send(("not up", str(error)))
    mesh.close()


def _die_at(me, number, pipe):
    """A real end, at the number-th message; the pipe hears when."""
    plain = me.send

    def send(to, tensor):
        if me.online.messages + me.prepared.messages == number[0]:
            pipe.send(("dies", time.monotonic()))  # one clock for all processes
            os.kill(os.getpid(), number[1])
        plain(to, tensor)

    me.send = send


@contextmanager
def three(dies_at=None, through=None, wrong_key=False, patience=PATIENCE):
    """Pipes to three parties that are up; ``through`` changes the address by which party 1 reaches party 0."""
    keys = [Keys.generate() for _ in NAMES]
    publics = [k.public for k in keys]
    context, pipes, processes = mp.get_context("forkserver"), [], []
    context.set_forkserver_preload(["tests.integration.test_mpc"])  # torch is loaded once
    for index, key in enumerate(keys):
        ours, theirs = context.Pipe()
        mine = Keys.generate() if wrong_key and index == 1 else key
        arguments = (theirs, index, (mine.curve_secret, mine._seed), publics, patience, dies_at if index == 1 else None)
        worker = context.Process(target=party, args=arguments, daemon=True)
        worker.start()
        theirs.close()
        pipes.append(ours)
        processes.append(worker)
    try:
        ports = [heard(pipe) for pipe in pipes]
        for index, pipe in enumerate(pipes):
            pipe.send({o: f"127.0.0.1:{through(ports[o][index]) if through and (o, index) == (0, 1) else ports[o][index]}"
                       for o in range(index)})  # fmt: skip
        yield pipes, [heard(pipe) for pipe in pipes]
    finally:
        for worker in processes:
            worker.kill()
            worker.join(10)


def heard(pipe, timeout=60):
    assert pipe.poll(timeout), "a party says nothing"
    return pipe.recv()


def ask(pipes):
    model = net()
    torch.manual_seed(1)
    image = torch.randn(2, 1, 12, 12)
    state = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
    split = [sharing.split(sharing.encode(t)) for t in (image, *state)]
    for index, pipe in enumerate(pipes):
        pipe.send(([(s[index], s[(index + 1) % 3]) for s in split],))
    with torch.no_grad():
        return model(image)


def test_a_network_on_shares_over_curve_and_again_with_fresh_masks():
    with three() as (pipes, up):
        assert up == ["up"] * 3
        seen = set()
        for _ in range(2):
            expected = ask(pipes)
            answers = [heard(pipe) for pipe in pipes]
            assert [a[0] for a in answers] == ["made"] * 3
            for i in range(3):
                assert torch.equal(answers[i][2], answers[(i + 1) % 3][1])
            found = sharing.decode(sharing.join([a[1] for a in answers]))
            assert (found - expected).abs().max() < 1e-4
            seen.add(tuple(answers[0][1].flatten().tolist()))
        assert len(seen) == 2, "the shares of the second run are others"


@pytest.mark.parametrize("number", [0, 3, 11, 90])
def test_a_party_that_is_killed_ends_the_run_of_the_others_at_once(number):
    with three((number, signal.SIGKILL)) as (pipes, _):
        ask(pipes)
        _, died = heard(pipes[1])
        for index in (0, 2):
            kind, said, ended = heard(pipes[index])
            assert kind == "failed"
            assert "bob is gone" in said or "is gone" in said
            assert "nothing was opened" in said
            assert ended - died < 10  # and not 30 s


def test_a_party_that_hangs_is_named_within_the_timeout():
    with three((11, signal.SIGSTOP), patience=8) as (pipes, _):
        ask(pipes)
        _, stopped = heard(pipes[1])
        said = [heard(pipes[index]) for index in (0, 2)]
        assert all(s[0] == "failed" and s[2] - stopped < 3 * 8 for s in said)
        assert any("bob did not send what was its turn" in s[1] for s in said)


def test_a_partner_with_another_key_is_not_one():
    with three(wrong_key=True, patience=4) as (_, up):
        assert up[0] == ("not up", f"{NAMES[1]} did not connect with its key within 4 s")


@pytest.fixture
def pair():
    """Two ends of a link, the first of which listens, before they connect."""
    keys = [Keys.generate(), Keys.generate()]
    meshes = [Mesh(i, keys[i], NAMES[:2]).expect([k.public for k in keys]) for i in (0, 1)]
    yield meshes
    for mesh in meshes:
        mesh.close()


def connected(pair):
    first, second = pair
    with ThreadPoolExecutor(2) as pool:
        up = pool.submit(first.connect, {}), pool.submit(second.connect, {0: f"127.0.0.1:{first.ports[1]}"})
        return up[0].result()[1], up[1].result()[0]


def test_sending_to_one_that_left_is_an_error_and_no_wait(pair):
    link, _ = connected(pair)
    pair[1].close()
    with pytest.raises(PartnerError, match="is gone"):
        link.receive(memoryview(bytearray(8)), timeout=10)
    begun = time.monotonic()
    with pytest.raises(PartnerError, match="is gone"):
        link.send(b"head", memoryview(b"12345678"))
    assert time.monotonic() - begun < 5


def test_a_partner_who_is_there_first_is_heard_of(pair):
    first, second = pair
    link = second.connect({0: f"127.0.0.1:{first.ports[1]}"}, timeout=PATIENCE)[0]
    assert first.connect({}, timeout=PATIENCE)[1]
    first._links[1].send(b"head", memoryview(b"12345678"))
    assert link.receive(memoryview(bytearray(8)), timeout=PATIENCE) == b"head"


def test_strangers_at_the_door_end_no_run(pair):
    link, other = connected(pair)
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(64)):
        with suppress(OSError), socket.create_connection(("127.0.0.1", pair[0].ports[1])) as stranger:
            stranger.sendall(said)  # it may be shown the door at any of these
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(1024):
                pass
        other.send(b"head", memoryview(b"12345678"))
        into = bytearray(8)
        assert link.receive(memoryview(into), timeout=PATIENCE) == b"head"
        assert into == b"12345678"
    with socket.create_connection(("127.0.0.1", pair[0].ports[1])):  # one that stays
        pair[1].close()
        with pytest.raises(PartnerError, match="did not send what was its turn|is gone"):
            link.receive(memoryview(bytearray(8)), timeout=1)


class Proxy:
    """Carries bytes between two sockets; from the ``after``-th byte of the one that called, it does something to them."""

    def __init__(self, after, how):
        self.after, self.how = after, how
        self.server = socket.create_server(("127.0.0.1", 0))

    def __call__(self, port):
        self.port = port
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        return self.server.getsockname()[1]

    def serve(self):
        with self.server, self.server.accept()[0] as theirs, socket.create_connection(("127.0.0.1", self.port)) as ours:
            back = threading.Thread(target=self.carry, args=(ours, theirs, None), daemon=True)
            back.start()
            self.carry(theirs, ours, self.how)
            back.join()

    def carry(self, source, target, how):
        count, bent = 0, False
        try:
            while data := source.recv(65536):
                count += len(data)
                if how and not bent and count > self.after:
                    data, bent = how(data), True
                target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


BENT = {
    "one bit": lambda d: d[:-1] + bytes([d[-1] ^ 1]),
    "a byte dropped": lambda d: d[:-1],
    "repeated": lambda d: d + d,
    "cut off": lambda d: (_ for _ in ()).throw(OSError()),
}


@pytest.mark.parametrize("how", BENT)
def test_a_bent_wire_ends_the_run_and_opens_nothing(how):
    proxy = Proxy(4000, BENT[how])
    with three(through=proxy) as (pipes, up):
        assert up == ["up"] * 3
        ask(pipes)
        said = [heard(pipe) for pipe in pipes]
        assert all(s[0] == "failed" for s in said), said
        assert all("nothing was opened" in s[1] for s in said)
    proxy.thread.join(10)


def test_the_core_needs_neither_opendp_nor_polars_nor_jupyter():
    code = """
import sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in {"opendp", "polars", "pandas", "pyarrow", "IPython", "ipykernel", "jupyter_client", "ipywidgets",
                                  "anywidget", "plotly", "platformdirs", "tomli_w"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import benchmarks.aby3, syft_lab.mpc.tensor, syft_lab.mpc.links, syft_lab.wire.zmq_link
print("loaded")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "loaded\n", done.stderr
