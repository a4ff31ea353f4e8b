"""Secure computation among three processes over CURVE on loopback: seconds from shares to shares, bytes, rounds, errors,
memory.

Each party is a process with one thread of torch; on two cores three of them compute in turns. The baseline is torch here,
with all threads, on the numbers themselves; where `make peers` was run, SPU and CrypTen come after each work. ``--device``
moves the parties' tensors.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing as mp
import os
import resource
import struct
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any

import torch
import torch.nn as nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks import peers
from benchmarks.measure import Row
from syft_lab.identity import Keys
from syft_lab.mpc import party as parties
from syft_lab.mpc import sharing
from syft_lab.mpc.aby3.aggregate import aggregate
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.links import Mesh
from syft_lab.mpc.share import Share
from syft_lab.mpc.tensor import run as run_shares
from tests.models import resnet18

NAMES = ("hospital-a", "hospital-b", "hospital-c")
MILLION, CLIENTS, WEIGHTS = 1_000_000, 10, 11_700_000
K = 32
MEANS: list[torch.Tensor] = []  # the last mean of clients, until it is checked


@cache
def vectors(index: int, device: torch.device) -> list[torch.Tensor | None]:
    """What this party's clients have; made in the first round, which is not the one that counts."""
    return [torch.full((WEIGHTS,), float(c), device=device) if c % parties.PARTIES == index else None for c in range(CLIENTS)]


def mean_of_clients(x: Share) -> Share:
    """Clients belong to the owners in turn; what is shared is each one's vector, and the mean is opened."""
    party = x.fixed.party
    owners = [client % parties.PARTIES for client in range(CLIENTS)]
    MEANS[:] = [aggregate(party, owners, vectors(party.index, party.device), (WEIGHTS,), x.fixed.f).div_(CLIENTS)]
    return x


def fold(net: nn.Module | None) -> None:
    """Batch normalisation into the convolutions before it: what an owner of a model does before it shares it."""
    for module in net.modules() if net else ():
        names = list(module._modules)
        for before, after in itertools.pairwise(names):
            conv, norm = module._modules[before], module._modules[after]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module._modules[before] = fuse_conv_bn_eval(conv, norm)
                module._modules[after] = nn.Identity()


def _works(name: str) -> tuple[Callable[..., Any], list[torch.Tensor], nn.Module | None]:
    """What is computed, on which numbers, with which module's weights shared too."""
    torch.manual_seed(0)
    normal = torch.randn
    net = resnet18(1000).eval() if name.startswith("resnet") else None
    if name.endswith("folded"):
        fold(net)
    return {
        "matmul 1000³": lambda: (torch.matmul, [normal(1000, 1000), normal(1000, 1000)], None),
        "relu 1 M": lambda: (torch.relu, [normal(MILLION)], None),
        "x < 0, 1 M": lambda: (lambda x: x < 0, [normal(MILLION)], None),
        "sigmoid 100 k": lambda: (torch.sigmoid, [normal(100_000)], None),
        "exp 100 k": lambda: (torch.exp, [normal(100_000)], None),
        "softmax 128×1000": lambda: (lambda x: x.softmax(1), [normal(128, 1000)], None),
        "max of 10 000×10": lambda: (lambda x: x.amax(1), [normal(10_000, 10)], None),
        "mean of 10 × 11.7 M": lambda: (lambda x: mean_of_clients(x) if isinstance(x, Share) else x, [torch.zeros(1)], None),
        "resnet18 224×224": lambda: (net, [normal(1, 3, 224, 224)], net),
        "resnet18 224×224, folded": lambda: (net, [normal(1, 3, 224, 224)], net),
    }[name]()  # fmt: skip


def _state(module: nn.Module | None) -> dict[str, torch.Tensor]:
    """Parameters and buffers of real numbers, by name."""
    if module is None:
        return {}
    return {**dict(module.named_parameters()), **{n: b for n, b in module.named_buffers() if b.is_floating_point()}}


class Delayed:
    """A link on which each message takes ``seconds`` longer: a far network's latency, with this machine's bandwidth."""

    def __init__(self, link: parties.Link, seconds: float) -> None:
        self._link, self._seconds = link, seconds

    def send(self, head: bytes, body: memoryview) -> None:
        """See `party.Link`."""
        self._link.send(head + struct.pack("d", time.monotonic()), body)  # one clock for all processes of a machine

    def receive(self, into: memoryview, timeout: float) -> bytes:
        """See `party.Link`."""
        head = self._link.receive(into, timeout)
        time.sleep(max(0.0, struct.unpack("d", head[-8:])[0] + self._seconds - time.monotonic()))
        return head[:-8]

    def close(self) -> None:
        """See `party.Link`."""
        self._link.close()


def serve(pipe: Any, index: int, secrets: list[tuple[str, bytes]], device: str, delay: float) -> None:
    """One party: answers each name of a work with its part of the result, and what it took."""
    torch.set_num_threads(1)
    malloc = ctypes.CDLL(None)
    if hasattr(malloc, "mallopt"):  # as an owner's children do: pages are kept (kernel/executor/plans.py)
        malloc.mallopt(-3, 1 << 30) or malloc.mallopt(-3, 32 << 20)
        malloc.mallopt(-1, (1 << 31) - 1)
    keys = [Keys(*secret) for secret in secrets]
    mesh = Mesh(index, keys[index], NAMES).expect([k.public for k in keys])
    pipe.send(mesh.ports)
    links: dict[int, parties.Link] = dict(mesh.connect(pipe.recv()))
    if delay:
        links = {other: Delayed(link, delay) for other, link in links.items()}
    pipe.send("up")
    while True:
        asked = pipe.recv()
        if asked is None:
            return
        name, inputs, rounds = asked
        work, _, module = _works(name)
        names = list(_state(module))
        if name.startswith("mean"):
            vectors(index, torch.device(device))
        before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
        for _ in range(rounds):
            party = parties.join(index, NAMES, links, device)
            fixed = Fixed(party, sharing.FRACTION, K)
            shares = [Share(Shared(a.to(device), b.to(device)), fixed) for a, b in inputs]
            weights = dict(zip(names, shares[len(shares) - len(names) :], strict=True)) if names else None
            start = time.perf_counter()
            made = run_shares(work, *shares[: len(shares) - len(names)], parameters=weights)
            made.shared  # noqa: B018 - what was put off counts
            times.append(time.perf_counter() - start)
        if MEANS and not bool((MEANS.pop() == (CLIENTS - 1) / 2).all()):  # now: partners may have been at work until here
            raise ValueError("the mean is wrong")
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        pipe.send((made.shared.own.cpu(), made.whole, times, asdict(party.online), asdict(party.prepared), peak))


MARKS = {
    "matmul 1000³": ("≤ 0.5 s", 0.5, "a product of 10^9 MACs at each party"),
    "relu 1 M": ("≤ 0.6 s", 0.6, "86 gates, a product"),
    "x < 0, 1 M": ("≤ 0.5 s", 0.5, "86 gates"),
    "sigmoid 100 k": ("≤ 0.3 s", 0.3, "12 products, two comparisons"),
    "exp 100 k": ("none", 1e9, "8 products, a comparison"),
    "softmax 128×1000": ("≤ 0.6 s", 0.6, "8 products, 999 comparisons a row"),
    "max of 10 000×10": ("≤ 0.12 s", 0.12, "9 comparisons a row"),
    "mean of 10 × 11.7 M": ("≤ 1.5 s", 1.5, "94 MB a client"),
    "resnet18 224×224, folded": ("≤ 6 s", 6.0, "1.8 GMAC at each party"),
    "resnet18 224×224": ("none", 1e9, "the same, and the batch-norm's roots"),
}


def run(rounds: int = 1, device: str = "cpu", delay_ms: float = 0.0) -> list[Row]:
    """All works; each several times, the best counts, for three processes on two cores disturb each other.

    With ``delay_ms`` each message takes so much longer: 20 make a round trip of 40, as between far cities.
    """
    keys = [Keys.generate() for _ in NAMES]
    secrets = [(k.curve_secret, k._seed) for k in keys]
    context = mp.get_context("spawn")
    pipes, processes = [], []
    for index in range(len(NAMES)):
        ours, theirs = context.Pipe()
        worker = context.Process(target=serve, args=(theirs, index, secrets, device, delay_ms / 1000), daemon=True)
        worker.start()
        pipes.append(ours)
        processes.append(worker)
    try:
        ports = [pipe.recv() for pipe in pipes]
        for index, pipe in enumerate(pipes):
            pipe.send({other: f"127.0.0.1:{ports[other][index]}" for other in range(index)})
        for pipe in pipes:
            pipe.recv()
        wanted = os.environ.get("ABY3_WORKS")
        chosen = [name for name in MARKS if not wanted or name.split()[0] in wanted.split(",")]
        return [row for name in chosen for row in _beside(_one(name, pipes, rounds), device == "cpu" and not delay_ms)]
    finally:
        for pipe in pipes:
            pipe.send(None)
        for worker in processes:
            worker.join(10)
            worker.terminate()


def _beside(row: Row, alike: bool) -> list[Row]:
    """A work's row, and one for each peer that is installed, where it works under the same conditions."""
    rows = [row]
    for peer in peers.there() if alike and row.what in peers.SHAPES else ():
        theirs = peers.seconds(peer, row.what)
        label = peers.PARTIES[peer][1] + ("" if theirs == theirs else "; it came to no end here, so nothing is compared")
        rows.append(Row(row.what, row.ours, theirs, "s", label, "", "ahead", row.ours < theirs))  # never ahead of no figure
    return rows


def _one(name: str, pipes: list[Any], rounds: int) -> Row:
    work, inputs, module = _works(name)
    split = [sharing.split(sharing.encode(t)) for t in (*inputs, *_state(module).values())]
    with torch.no_grad():
        start = time.perf_counter()
        plain = work(*inputs)
        here = time.perf_counter() - start
    for index, pipe in enumerate(pipes):
        pipe.send((name, [(s[index], s[(index + 1) % 3]) for s in split], 5 * rounds))
    answers = [pipe.recv() for pipe in pipes]
    seconds = min(max(times) for times in zip(*(a[2] for a in answers), strict=True))
    opened = sharing.join([a[0] for a in answers])
    found = opened.double() if answers[0][1] else sharing.decode(opened)
    error = (found - plain.double()).abs().max().item()
    online, prepared = ([a[i]["bytes"] / 1e6 for a in answers] for i in (3, 4))
    heard = max(a[3]["rounds"] for a in answers) + max(a[4]["rounds"] for a in answers)
    mark, most, floor = MARKS[name]
    against = (f"torch here; {sum(online) / 3:.1f} MB a party online (most {max(online):.1f}), {sum(prepared) / 3:.1f} before, "
               f"{heard} rounds, error {error:.1e}, peak +{max(a[5] for a in answers):.0f} MB")  # fmt: skip
    return Row(name, seconds, here, "s", against, floor, mark, seconds <= most)
