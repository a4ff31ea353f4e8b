"""Three parties of a run in threads of this process, each asked what it likes; and what one of them, with the analyst, sees.

`Room` has the parties and keeps all that they send. `View` is one party's: what came to it, what it holds, all that it can draw
(for every turn of anybody's, for it knows what the analyst asked), and, where an owner keeps its part of a value back, the part of
the third. It finds sums and differences of these that are the same in all entries: secrets here have equal entries, masks don't.
"""

import itertools
import threading
from collections import deque

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from syft_lab import plans
from syft_lab.errors import LabError, PartnerError
from syft_lab.kernel.executor.joint import COMPARED, Joint
from syft_lab.mpc import party as parties
from syft_lab.mpc.aby3 import vouch
from syft_lab.mpc.aby3.draws import Draw
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.randomness import CIPHER_BYTES, turn_key
from syft_lab.mpc.share import Share

NAMES = ("alice", "bob", "carol")
N, PLANES, PATIENCE = 64, 32, 20.0
SLOTS = [slot for slot in Draw if slot is not Draw.AGGREGATE]  # which no analyst asks for
WEIGHTS = np.random.default_rng(0).integers(0, 2**63, N - 1, dtype=np.uint64) * 2 + 1


def run(inputs, output, *calls, free=()):
    """What a party is asked to run: a plan of calls on held values, (op, arguments), of which the last one's result is kept.

    In arguments `Ref` stands for an input, or for what an earlier call made.
    """
    count = len(inputs)
    nodes = tuple(plans.Node(op, tuple(args), {}, (count + i,)) for i, (op, args) in enumerate(calls))
    found = plans.Plan(count, nodes, (count + len(calls) - 1,))
    return ("run", found, {"inputs": inputs, "outputs": [output], "free": list(free), "seeds": []}, found.digest)


class _Link:
    """One end of a link inside a room."""

    def __init__(self, room, me, other):
        self._room, self._me, self._other = room, me, other

    def send(self, head, body):
        self._room.put(self._me, self._other, head, bytes(body))

    def receive(self, into, timeout):
        head, body = self._room.take(self._me, self._other)
        if len(body) != into.nbytes:
            raise PartnerError("sent a message of another length")
        into[:] = body
        return head

    def close(self):
        self._room.leave(self._me)


class Room:
    """Three parties who have joined a run. Who waits for what nobody will send hears of it at once."""

    def __init__(self):
        self._changed = threading.Condition()
        self._queues = {pair: deque() for pair in itertools.permutations(range(3), 2)}
        self._busy, self._waits, self._left = set(), {}, set()
        self.sent = {pair: [] for pair in self._queues}
        self.turns = set()
        self.parts = [{} for _ in NAMES]  # by value, what each owner would give of it
        self.errors = [[] for _ in NAMES]
        self.joints = [Joint() for _ in NAMES]
        for joint, index in zip(self.joints, range(3), strict=True):
            joint._index, joint._names = index, NAMES
        self._each([lambda i=i: self._join(i) for i in range(3)])

    def _join(self, index):
        links = {other: _Link(self, index, other) for other in range(3) if other != index}
        self.joints[index]._fixed = Fixed(parties.join(index, NAMES, links, timeout=PATIENCE, log=True), 18, COMPARED)
        self._note_turns(self.joints[index].fixed.party)

    def _note_turns(self, party):
        turn = party.turn

        def noted(what):
            turn(what)
            self.turns.add(party.run)

        self.turns.add(party.run)
        party.turn = noted

    def ask(self, schedules):
        """Ask each party its own list of things, all three at the same time; a party that ended is asked no more."""
        self._each([lambda i=i, calls=calls: self._go(i, calls) for i, calls in enumerate(schedules)])

    def _go(self, index, calls):
        joint = self.joints[index]
        for command, *args in calls:
            if index in self._left:
                return
            try:
                found = getattr(joint, command)(*args)
                if command == "open":
                    self.parts[index][args[0]] = bytes(found)
            except LabError as error:
                self.errors[index].append(error)
                if isinstance(error, PartnerError):
                    joint.close()

    def _each(self, works):
        self._busy = set(range(3))

        def one(index, work):
            try:
                work()
            finally:
                with self._changed:
                    self._busy.discard(index)
                    self._changed.notify_all()

        threads = [threading.Thread(target=one, args=(i, work)) for i, work in enumerate(works)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a party hangs"

    def put(self, me, other, head, body):
        with self._changed:
            self.sent[me, other].append(body)
            self._queues[me, other].append((head, body))
            self._changed.notify_all()

    def take(self, me, other):
        with self._changed:
            queue = self._queues[other, me]
            self._waits[me] = queue
            try:
                self._changed.wait_for(lambda: queue or other in self._left or self._still(), PATIENCE)
            finally:
                del self._waits[me]
            if queue:
                return queue.popleft()
            raise PartnerError("is gone" if other in self._left else "did not send what was its turn")

    def _still(self):
        """Whether every party that is busy waits for what is not there."""
        return all(index in self._waits and not self._waits[index] for index in self._busy)

    def leave(self, me):
        with self._changed:
            self._left.add(me)
            self._changed.notify_all()


class View:
    """What the party ``who`` and the analyst know of a room; ``third`` is another owner that gave its parts, None where none did."""

    def __init__(self, room, who, third):
        self._room, self._who = room, who
        self.party = room.joints[who].fixed.party
        self.bodies = [b for (_, to), sent in room.sent.items() if to == who for b in sent[1:]]  # the first is the greeting
        streams = self._streams()
        self.came = [np.frombuffer(b, np.uint64) for b in self.bodies if len(b) == 8 * N]
        self.words = self.came + self._held() + self._given(third)
        self.draws = np.concatenate([s[:, : 8 * N].copy().view(np.uint64) for s in streams])
        self.planes = [b for b in self.bodies if len(b) % (N // 8) == 0 and len(b) not in (32, 8 * N)]
        self.rows = np.concatenate(streams).reshape(-1).view(np.uint64)

    def _streams(self):
        """All draws under keys that this party has, by one encryption of all counters; as adversaries do, not as parties."""
        ops = max(j.fixed.party.steps for j in self._room.joints) + 1
        blocks = N * 8 // 16
        counters = b"".join(
            (op << 96 | slot << 64 | n).to_bytes(16, "big") for op in range(ops) for slot in SLOTS for n in range(blocks)
        )
        keys = [turn_key(key, turn, "draws")[:CIPHER_BYTES] for key in self.party.keys.values() for turn in self._room.turns]
        keys += [stream._key for stream in self.party.streams.values()]
        keys += [turn_key(turn_key(key, turn, "seed"), b"", "mask")[:CIPHER_BYTES] for key in self.party.keys.values()
                 for turn in self._room.turns]  # fmt: skip
        made = [Cipher(algorithms.AES(k), modes.ECB()).encryptor().update(counters) for k in dict.fromkeys(keys)]
        return [np.frombuffer(m, np.uint8).reshape(ops * len(SLOTS), 16 * blocks) for m in made]

    def _held(self):
        states = [h.tensor.state for h in self._room.joints[self._who].space.held.values() if isinstance(h.tensor, Share)]
        found = [t for state in states if isinstance(state, Shared) for t in state]
        return [t.contiguous().numpy().view(np.uint64) for t in found if t.numel() == N]

    def _given(self, third):
        """Of the parts that one other owner gave: what it masks, less each of the zero-shares, and the mask that it tells."""
        found = []
        for blob in [] if third is None else self._room.parts[third].values():
            part = vouch._parsed(blob, [N], NAMES[third])
            for turn in self._room.turns:
                stand_in = parties.Party(0, NAMES, {}, {}, turn, self.party.common)
                found += [(part.masked - zero).numpy().view(np.uint64) for zero in vouch._zero_share(stand_in, [N])]
            found += [part.masked.numpy().view(np.uint64), vouch._mask(part.seed, [N]).numpy().view(np.uint64)]
        return found

    def constants(self):
        """Numbers that are a sum or difference of up to three things that are not drawn, and of one draw, in all entries."""
        draws = np.unique(_told(self.draws))
        words = np.unique(np.array(self.words), axis=0)  # a share that came is held as it came
        marks = _told(words)
        new = ~np.isin(marks, np.concatenate([[np.uint64(0)], draws, -draws]))
        things, marks = words[new], marks[new]
        known = np.concatenate([np.zeros(1, np.uint64), draws])
        found = {int(w[0].astype(np.int64)) for w in self.came if (w == w[0]).all()}
        for count in (1, 2, 3):
            for signs in itertools.product((1, -1), repeat=count - 1):
                for places in _places(len(things), count):
                    total = marks[places[:, 0]].copy()
                    for sign, column in zip(signs, places.T[1:], strict=True):
                        total = total + marks[column] if sign > 0 else total - marks[column]
                    for way in (1, -1):
                        for at in np.nonzero(np.isin(total if way > 0 else -total, known))[0]:
                            found |= self._solved([things[p] for p in places[at]], (1, *signs), way)
        return found

    def _solved(self, things, signs, way):
        total = sum((t if s > 0 else -t) for t, s in zip(things, signs, strict=True))
        rests = [total, *(total - d if way > 0 else total + d for d in self.draws)]
        return {int(r[0].astype(np.int64)) for r in rests if (r == r[0]).all()}

    def tilt(self):
        """How many standard deviations from a half the ones are, of all bits that came."""
        bits = np.unpackbits(np.frombuffer(b"".join(self.planes), np.uint8))
        return abs(int(bits.sum()) - len(bits) / 2) / max(1, len(bits)) ** 0.5 * 2

    def same_bits(self):
        """How many pairs of planes that came are alike, or opposite, in all entries, but for a draw that this party can make."""
        draws = np.sort(_turned(self.rows))
        rows = np.unique(_turned(np.frombuffer(b"".join(self.planes), np.uint64)))
        rows = rows[~_among(rows, draws)]
        first, second = np.triu_indices(len(rows), 1)
        pairs = rows[first] ^ rows[second]
        return int(_among(pairs, draws).sum() + (pairs == 0).sum() + (rows == 0).sum())


def _told(words):
    """A number for each vector of the rows: a linear one, and 0 where all entries are the same."""
    return ((words[:, 1:] - words[:, :-1]) * WEIGHTS).sum(1, dtype=np.uint64)


def _turned(rows):
    """0 where all bits of a row are the same, and linear."""
    return rows ^ (rows << np.uint64(1) | rows >> np.uint64(63))


def _among(things, known):
    """Which of these are among others, which are sorted."""
    return known[np.searchsorted(known, things) % len(known)] == things


def _places(count, of):
    """All choices of so many things, some thousands at a time."""
    chosen = itertools.combinations(range(count), of)
    while block := list(itertools.islice(chosen, 50_000)):
        yield np.array(block)


def secret(value):
    """A tensor of equal entries."""
    return torch.full((N,), value)
