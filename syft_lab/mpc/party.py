"""One of the parties of a run: whom it talks to, what it draws with whom, and an exact count of what it sent.

The parties run the same program in lock-step. Party i holds the keys i and i + 1 (modulo 3), and shares of the same
numbers: so key i is known to the parties i − 1 and i. A message is one tensor, after a head with the name of the turn, the
number of the message on this link, the round, and the length: what was dropped, repeated, swapped, cut or left over from
another run is an error, and ends the run.

Whoever asks the parties may ask them different things, and one of them may be on its side. So a turn's name is a hash of all
that the party was asked in this run, in order, and of how far it got; and the keys that it draws with are made of that name.
Two parties draw alike only while they were asked alike: no two messages go out under one mask (docs/mpc.md).

The round of a message is one more than the latest that its sender had heard of: at the end the highest is the number of
messages that had to wait for each other, which is what a network's latency is multiplied with.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from syft_lab.errors import PartnerError
from syft_lab.mpc.randomness import CIPHER_BYTES, FRESH_BYTES, KEY_BYTES, Stream, fresh, run_key, turn_key

PARTIES = 3
WAIT_SECONDS = 30.0
VERSION = b"syft-lab mpc 4\0\0"
STEPS = f"torch {'.'.join(torch.__version__.split('.')[:2])}".encode().ljust(16, b"\0")  # may do one operation in other steps
HELLO_BYTES = len(VERSION) + len(STEPS) + FRESH_BYTES + KEY_BYTES
NAME_BYTES = 32
_HEAD = struct.Struct("<32sIIQ")
_NO_RUN = bytes(NAME_BYTES)


class Link(Protocol):
    """An authenticated, ordered way to one partner. All three raise PartnerError, without its name, where it is broken."""

    def send(self, head: bytes, body: memoryview) -> None:
        """Send a message; ``body`` must stay as it is until it has left."""

    def receive(self, into: memoryview, timeout: float) -> bytes:
        """Wait for a message whose body fills ``into``; gives its head."""

    def close(self) -> None:
        """End it; the partner hears of that."""


@dataclass
class Counts:
    """What one party sent. ``rounds`` are those that the party has heard of."""

    bytes: int = 0
    messages: int = 0
    rounds: int = 0


@dataclass
class _Side:
    """One direction and the other of a link: how many messages, and those that are due before the next."""

    sent: int = 0
    received: int = 0
    due: deque[Callable[[], None]] = field(default_factory=deque)


@dataclass
class Party:
    """Party ``index`` of three, on ``device``. Made by `join`.

    ``keys`` are those of the run; ``run`` names the turn, and ``streams`` draw with its keys. ``common`` is a key that all
    three parties have, and nobody else. ``logs`` keep the names of draws under each key, where that is wanted.
    """

    index: int
    names: Sequence[str]
    links: Mapping[int, Link]
    keys: Mapping[int, bytes]
    run: bytes
    common: bytes = b""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    timeout: float = WAIT_SECONDS
    online: Counts = field(default_factory=Counts)
    prepared: Counts = field(default_factory=Counts)
    opened: bool = False  # whether this party has sent a share that opens a value
    logs: Mapping[int, set[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._counts, self._step = self.online, 0
        self._over: PartnerError | None = None
        self._sides = {i: _Side() for i in self.links}
        self.streams = self._drawing()

    @property
    def next(self) -> int:
        """The party after this one, which holds the share that this one lacks and its own second."""
        return (self.index + 1) % PARTIES

    @property
    def previous(self) -> int:
        """The party before this one."""
        return (self.index - 1) % PARTIES

    def turn(self, what: bytes) -> None:
        """Go on to what the parties were all asked to do now, with keys of its own. Raises PartnerError where the run is over.

        Messages name it: one from a party that was asked something else is an error. The name is a hash of the last, of
        ``what``, and of how many operations there were: parties of which one failed in the middle of a turn part there.
        """
        self.check()
        done = self._step.to_bytes(8, "big")
        self.run = hashlib.sha256(b"turn" + self.run + done + hashlib.sha256(what).digest()).digest()
        self.streams = self._drawing()

    def _drawing(self) -> dict[int, Stream]:
        return {key: Stream(self.secret(key, "draws")[:CIPHER_BYTES], self.logs.get(key)) for key in self.keys}

    def secret(self, key: int, use: str) -> bytes:
        """32 bytes that both holders of ``key`` have in this turn for ``use``, and nobody else."""
        return turn_key(self.keys[key], self.run, use)

    @property
    def steps(self) -> int:
        """How many operations there were."""
        return self._step

    def step(self) -> int:
        """The number of the next operation: the name of its masks. It goes on from turn to turn."""
        self._step += 1
        return self._step

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """What is sent here does not depend on inputs: it is counted apart."""
        before, self._counts = self._counts, self.prepared
        try:
            yield
        finally:
            self._counts = before

    # Draws

    def words(self, key: int, op: int, slot: int, shape: Sequence[int]) -> Tensor:
        """Uniform int64 numbers that both holders of ``key`` draw alike."""
        return self.streams[key].words(op, slot, shape, self.device)

    def bits(self, key: int, op: int, slot: int, shape: Sequence[int]) -> Tensor:
        """Uniform bytes, as uint8: bits in planes."""
        return self.streams[key].bytes(op, slot, math.prod(shape), self.device).view(tuple(shape))

    # Messages

    def check(self) -> None:
        """Raises PartnerError where the run is over: what broke once is never gone on with."""
        if self._over is not None:
            raise type(self._over)(str(self._over))

    def end(self, why: str, kind: type[PartnerError] = PartnerError) -> PartnerError:
        """End the run; gives the error that says so, the first there was."""
        known = "what was opened before stays known" if self.opened else "nothing was opened"
        self._over = self._over or kind(f"{why}; the run ended, and {known}")
        return self._over

    def send(self, to: int, tensor: Tensor) -> None:
        """Send a tensor, which must not be written to afterwards."""
        self.check()
        body = memoryview(tensor.detach().contiguous().cpu().numpy()).cast("B") if tensor.numel() else memoryview(b"")
        side = self._sides[to]
        side.sent += 1
        counts = self._counts
        counts.bytes += body.nbytes
        counts.messages += 1
        with self._naming(to):
            self.links[to].send(_HEAD.pack(self.run, side.sent, counts.rounds + 1, body.nbytes), body)

    def receive(self, source: int, shape: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
        """The tensor that a partner sends next. Raises PartnerError, with its name, for anything else, or after a while."""
        return self.later(source, shape, dtype)()

    def later(self, source: int, shape: Sequence[int], dtype: torch.dtype = torch.int64) -> Callable[[], Tensor]:
        """The same, but what it gives waits: it is taken when it, or a message after it, is asked for."""
        side, counts, run = self._sides[source], self._counts, self.run
        found: list[Tensor] = []

        def take() -> Tensor:
            while not found:
                side.due.popleft()()
            return found[0]

        def read() -> None:
            found.append(self._read(source, side, counts, run, shape, dtype))

        side.due.append(read)
        return take

    def _read(self, source: int, side: _Side, counts: Counts, run: bytes, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        found = torch.empty(tuple(shape), dtype=dtype)
        raw = memoryview(found.numpy().reshape(-1)).cast("B") if found.numel() else memoryview(bytearray())
        self.check()
        side.received += 1
        with self._naming(source):
            head = self.links[source].receive(raw, self.timeout)
            if len(head) != _HEAD.size:
                raise PartnerError("sent a message without its head")
            said, number, round_, size = _HEAD.unpack(head)
            if said != run:
                raise PartnerError("was asked something else than this party, has other public numbers, or is in another run")
            if (number, size) != (side.received, raw.nbytes):
                raise PartnerError("sent a message of another step")
        counts.rounds = max(counts.rounds, round_)
        return found.to(self.device)

    def close(self) -> None:
        """Leave the run; whoever waits for this party hears of it."""
        self.end("this party left")
        for link in self.links.values():
            link.close()

    @contextmanager
    def _naming(self, other: int) -> Iterator[None]:
        try:
            yield
        except PartnerError as error:
            raise self.end(f"{self.names[other]} {error}", type(error)) from None


def join(
    index: int,
    names: Sequence[str],
    links: Mapping[int, Link],
    device: torch.device | str = "cpu",
    timeout: float = WAIT_SECONDS,
    log: bool = False,
) -> Party:
    """Agree with the partners on fresh keys, and begin a run.

    Each party sends to the others its version of the protocols, its release of torch, 32 fresh bytes, the same to both, and to
    the one before it the key that both will have; the links keep them secret. Raises PartnerError for another version, or
    release: parties that count operations otherwise would draw one mask for two. With ``log`` a mask drawn twice is an error.
    """
    salt, secret = fresh(), fresh(KEY_BYTES)
    party = Party(index, names, links, {}, _NO_RUN, device=torch.device(device), timeout=timeout)
    for other in links:
        mine = VERSION + STEPS + salt + (secret if other == party.previous else bytes(KEY_BYTES))
        party.send(other, torch.frombuffer(bytearray(mine), dtype=torch.uint8))
    salts, secrets = [salt] * PARTIES, {index: secret}
    for other in links:
        heard = bytes(party.receive(other, (HELLO_BYTES,), torch.uint8).cpu().numpy())
        if not heard.startswith(VERSION):
            raise PartnerError(
                f"{names[other]} has another version of the protocols: bring all to the same release of Syft Lab"
            )
        rest = heard[len(VERSION) :]
        if not rest.startswith(STEPS):
            theirs, ours = (ascii(t[: len(STEPS)].rstrip(b"\0").decode("ascii", "replace")) for t in (rest, STEPS))
            raise PartnerError(
                f"{names[other]} has {theirs}, and {names[index]} {ours}: parties need the same, for they go in step"
            )
        salts[other] = rest[len(STEPS) :][:FRESH_BYTES]
        if other == party.next:
            secrets[other] = heard[-KEY_BYTES:]
    keys = {key: run_key(value, salts, f"key {key}") for key, value in secrets.items()}
    run, common = (run_key(b"".join(salts), salts, use) for use in ("run", "common"))
    logs: dict[int, set[tuple[int, int]]] = {key: set() for key in keys} if log else {}
    return Party(index, names, links, keys, run, common, torch.device(device), timeout, logs=logs)
