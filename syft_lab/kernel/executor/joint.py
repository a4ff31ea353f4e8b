"""A party of a federation: runs plans as `runner` does, but on shares, in lock-step with two other owners' parties.

    gather (a key, ports) → meet (the partners' keys) → join (links, fresh masks) → enter, deal, put → plans → open

All that the parties are asked, each part of a tensor that comes in, and what was refused or failed, is hashed into the name
that their messages carry, and that their masks are made of (`Party.turn`): an analyst who asks one of them something else ends
the run, before anything is opened, and no mask is used twice. What may change a party goes through `Joint._turn`, which is the
one place where that is done; what only reads does not. What an owner opens is its part of the value (`aby3.vouch`): all three
are needed, so one owner who keeps its part back keeps the value closed, and each is vouched for by two.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from syft_lab import canonical
from syft_lab.errors import (
    FailedError,
    LabError,
    PartnerError,
    PrivateValueError,
    RefusedOpError,
    StalePointerError,
    StateError,
    UsageError,
    WireError,
)
from syft_lab.identity import Keys, PublicKeys
from syft_lab.kernel.executor.compiled import Compiled, Step, text
from syft_lab.kernel.executor.provenance import Made
from syft_lab.kernel.executor.runner import Held, Partial, Quota, Runner
from syft_lab.labels import PUBLIC, Label
from syft_lab.mpc import party, sharing
from syft_lab.mpc import tensor as _rules  # noqa: F401 - they are entered
from syft_lab.mpc.aby3.input import agree, enter
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.aby3.vouch import give
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.links import Mesh
from syft_lab.mpc.share import Share, check
from syft_lab.plans import Plan
from syft_lab.spec import Spec, as_bytes

COMPARED = 32  # bits in which differences of numbers lie
MEET_SECONDS, MAX_STORY = 20.0, 48 << 10


class Joint(Runner):
    """The values of one session in a federation, of each this party's shares."""

    def __init__(self, device: str = "cpu", quota: Quota | None = None) -> None:
        super().__init__(device, quota)
        self._mesh: Mesh | None = None
        self._index, self._names = 0, tuple[str, ...]()
        self._fixed: Fixed | None = None
        self._addresses: dict[int, str] = {}
        self._stories: list[tuple[Made, str]] = []  # how this owner's own values came to be
        self._compare: list[Callable[[], None]] = []  # of shares that came in, and were not used yet
        self._begun = 0  # steps of plans

    # Coming together

    def gather(self, index: int, names: Sequence[str], host: str) -> dict[str, Any]:
        """Make a key for this run, and listen for the partners; gives the key and the ports."""
        if self._mesh is not None:
            raise StateError("this party is in a run already")
        keys = Keys.generate()
        self._index, self._names = index, tuple(names)
        self._mesh = Mesh(index, keys, names, host)
        return {"curve": keys.public.curve, "ports": sorted(self._mesh.ports.items())}

    def meet(self, keys: Sequence[tuple[str, str]], addresses: Mapping[str, str]) -> None:
        """Take in the keys of all parties (CURVE and signing), and the addresses of those with lower indexes."""
        if self._mesh is None:
            raise StateError("this party has not begun a run")
        self._mesh.expect([PublicKeys(*k) for k in keys])
        self._addresses = {int(i): a for i, a in addresses.items()}

    def join(self, fraction: int) -> None:
        """Connect to the partners, who have all met, and agree on fresh masks."""
        if self._mesh is None or self._fixed is not None:
            raise StateError("this party has met nobody")
        links = self._mesh.connect(self._addresses, MEET_SECONDS)
        self._fixed = Fixed(party.join(self._index, self._names, links, self.device), fraction, COMPARED)
        self._say("join", fraction, COMPARED, list(self._names))

    def close(self) -> None:
        """Leave: the partners hear of it."""
        if self._fixed is not None:
            self._fixed.party.close()
        if self._mesh is not None:
            self._mesh.close()

    @property
    def fixed(self) -> Fixed:
        """The functions of this run."""
        if self._fixed is None:
            raise StateError("this party has not joined a run yet")
        return self._fixed

    def _say(self, *what: Any) -> None:
        """Hash something into the name of the turn, with how far this party got; raises StateError before it has joined."""
        space, party = self.space, self.fixed.party
        party.turn(canonical.dumps([*what, len(space.held), len(space.partial), self._begun]))

    @contextmanager
    def _turn(self, *what: Any) -> Iterator[None]:
        """What may change this party, or makes it send something: a turn, from before the first check to how it came out.

        What all parties refuse alike leaves them together. One that refuses what others do has a name of its own from there
        on. Its words are not hashed, for they have the numbers of one machine. What failed in a way that nobody foresaw ends
        the run, for it may have stopped anywhere.
        """
        self._say(*what)
        try:
            yield
        except (PartnerError, StalePointerError):  # the run is over
            raise
        except LabError as error:
            self._say("refused", error.code)
            raise
        except BaseException:
            self.close()
            raise

    def _once(self, number: int) -> None:
        """Raise WireError for a value that is there already, and FailedError where there are too many."""
        if type(number) is not int or number in self.space.held:
            raise WireError("a value is made once")
        if len(self.space.held) >= self.quota.values:
            raise FailedError(f"more than {self.quota.values} values are held for you; let some pointers go")

    def _agreed(self) -> None:
        """Look at what the partners hold of shares that came in, before any of them is used; raises PartnerError."""
        while self._compare:
            self._compare.pop(0)()

    # What comes in

    def enter(
        self, number: int, owner: int, shape: Sequence[int], source: str, story: str, value: torch.Tensor | None, lost: bool
    ) -> None:
        """Shares of an owner's value, which that owner's party alone has. ``story`` says to its owner how it came to be.

        Whether numbers are in range is private: where some are not, the value is lost at its owner, in silence. So is one that
        could not be computed.
        """
        with self._turn("enter", number, owner, list(shape)):
            self._once(number)
            if number in self.space.partial:
                raise WireError("a value is made once")
            self._room(2 * 8 * math.prod(shape))
            fixed, why, whole = self.fixed, "the value that was shared could not be computed" if lost else "", None
            if value is not None:
                try:
                    whole = sharing.encode(value.to(self.device), fixed.f)
                except UsageError as error:
                    whole = torch.zeros(tuple(shape), dtype=torch.int64, device=self.device)
                    why = f"it was not shared: {error}"
            shared = enter(fixed.party, owner, whole, shape)
            self._compare.append(agree(fixed.party, shared))
            made = Made(f"shared by {source} {list(shape)}")
            if story:
                self._stories.append((made, story))
            self._share(number, shared, Label("private", (source,)), made, why)

    def load(self, number: int, tensor: torch.Tensor, label: Mapping[str, Any], name: str) -> None:
        """Refused: a party takes in shares."""
        raise UsageError("a session in a federation takes in shares, and no value as it is")

    def adopt(self, number: int, dtype: str, shape: Sequence[int], source: str, value: torch.Tensor | None) -> None:
        """Refused: see `load`."""
        raise UsageError("a session in a federation takes in shares, and no value as it is")

    def deal(self, number: int, shape: Sequence[int], start: int, data: bytes | memoryview) -> None:
        """Take in a part of the analyst's own shares: the two that this party has, one after the other, as int64."""
        part = memoryview(data).cast("B")
        with self._turn("deal", number, list(shape), start, part.nbytes):
            self._once(number)
            whole = self._dealt(number, 2 * 8 * math.prod(shape), start, part)
            if whole is not None:
                words = torch.from_numpy(whole.view(np.int64)).reshape(2, *shape).to(self.device)
                shared = Shared(words[0], words[1])
                self._compare.append(agree(self.fixed.party, shared))
                self._share(number, shared, PUBLIC, Made(f"shared by the analyst {list(shape)}"), "")

    def _dealt(self, number: int, size: int, start: int, part: memoryview) -> np.ndarray[Any, Any] | None:
        """Keep a part of a value of ``size`` bytes; gives them once all are there. Raises WireError for one out of order."""
        if start == 0 and number not in self.space.partial:
            self._room(size)
            self.space.partial[number] = Partial(np.empty(size, np.uint8))
        found = self.space.partial.get(number)
        if found is None or found.memory.nbytes != size or found.at != start or start + part.nbytes > size:
            raise WireError("a part of a tensor came out of order")
        found.memory[start : start + part.nbytes] = part
        found.at += part.nbytes
        if found.at < size:
            return None
        del self.space.partial[number]
        return found.memory

    def place(self, number: int, dtype: str, shape: Sequence[int], start: int, size: int) -> memoryview | None:
        """See `Runner.place`; nothing is begun before the run is, for what a party has then is in no turn."""
        return None if self._fixed is None or number in self.space.held else super().place(number, dtype, shape, start, size)

    def put(self, number: int, dtype: str, shape: Sequence[int], start: int, data: bytes | memoryview) -> None:
        """Take in a part of a tensor that all parties may know."""
        with self._turn("put", number, dtype, list(shape), start, memoryview(data).nbytes):
            self._once(number)
            whole = self._partial(number, dtype, shape, start).memory
            super().put(number, dtype, shape, start, data)
            if number in self.space.held:
                self._say("constant", hashlib.sha256(whole.data).hexdigest())

    def _share(self, number: int, shared: Shared, label: Label, made: Made, why: str) -> None:
        share = Share(shared, self.fixed)
        spec = Spec.of(torch.empty(share.shape, dtype=share.dtype, device="meta"), label, 0)
        self.space.held[number] = Held(share, spec, made, why=why)

    # Plans

    def run(self, found: Plan, run: Mapping[str, Any], digest: str, keep: bool = False) -> dict[str, Any]:
        """Run a plan, as all parties do now."""
        self._agreed()
        with self._turn("run", found.digest, *(run[k] for k in ("inputs", "outputs", "free", "seeds"))):
            said = super().run(found, run, digest, keep)
            if said["lost"]:
                self._say("lost")
            return said

    def _swift(self, plan: Compiled, given: Sequence[Held], digest: str, seeds: tuple[int, ...]) -> dict[int, Held] | None:
        """What failed can't be tried again in another way: the partners have gone on."""
        return None

    def _compute(self, plan: Compiled, given: Sequence[Held], seeds: Sequence[int]) -> dict[int, Held]:
        """Run a plan that holds nothing that shares don't have."""
        shared = {n for n, held in enumerate(given) if isinstance(held.tensor, Share)}
        for step in plan.steps:
            if shared.intersection(step.reads):
                if step.kind.func is None:
                    raise RefusedOpError("a program for each record has no form on shares; write it on all records at once")
                check(step.kind.func)
                shared.update(o for o in step.outs if o is not None)
        return super()._compute(plan, given, seeds)

    def _step(self, step: Step, values: dict[int, Held], lossy: bool, seeds: Sequence[int]) -> bool:
        """Run one step: shares tell nothing of values, so what fails says so."""
        self._begun += 1
        kind, past = step.kind, tuple([values[n].made for n in step.reads])
        why = next((values[n].why for n in step.reads if values[n].why), "")
        if any(values[n].tensor is None for n in step.reads):
            raise FailedError(why)
        before = self.fixed.party.steps
        try:
            seed = None if step.seed is None else seeds[step.seed]
            found = kind.call(*step.arguments(lambda n: values[n].tensor), seed)
        except LabError:  # alike at all parties, or a partner's end
            raise
        except (MemoryError, torch.OutOfMemoryError):
            raise self._ended("the owner's machine has not enough memory for this plan") from None
        except torch.AcceleratorError:  # no operation on that GPU works in this process any more
            raise self._ended("the owner's GPU failed") from None
        except Exception as error:
            if self.fixed.party.steps != before:  # in the middle of a protocol: the partners may be further
                raise self._ended(f"{kind.op} failed in the middle of a protocol, {type(error).__name__}") from None
            said = str(error).splitlines() or [type(error).__name__]
            raise FailedError(f"{kind.op} failed: {said[0][:300]}") from None
        for i, (number, spec) in enumerate(zip(step.outs, kind.outs, strict=True)):
            if number is None or spec is None:
                continue
            if i >= len(found) or found[i] is None:
                raise FailedError(f"{kind.op} gave one result less here than it should")
            if isinstance(found[i], Share) and found[i].whole == spec.dtype.is_floating_point:  # it would be read wrong
                raise FailedError(f"{kind.op} gave {found[i].dtype} on shares, where torch gives {spec.dtype}; report it")
            made = Made(text(step, seeds), past, i, len(kind.outs))
            self._remember(made)
            values[number] = Held(found[i], spec, made, why="" if spec.label.kind == "public" else why)
        return False

    def _late(self) -> StalePointerError:
        return self._ended(f"a plan took longer than the {self.quota.seconds:g} s that you may use at a time; split it")

    def _ended(self, why: str) -> StalePointerError:
        """Leave a run in which this party can't keep up, so that the partners need not wait for it."""
        self.close()
        return StalePointerError(f"{self._names[self._index]}: {why}")

    def bytes(self) -> int:
        """Bytes of memory that values hold."""
        held = self.space.held.values()
        return sum(2 * 8 * math.prod(h.spec.shape) for h in held) + sum(p.memory.nbytes for p in self.space.partial.values())

    # What goes out

    def describe(self, number: int) -> dict[str, Any]:
        """See `Runner.describe`; with how this owner's own values came to be."""
        found, fixed, made = super().describe(number), self.fixed, self._get(number).made
        others = [n for i, n in enumerate(self._names) if i != self._index]
        head = [
            f"# A value that {', '.join(self._names)} computed together on shares, {fixed.f} bits after the point.",
            "# What leaves here is one of its three parts: numbers that look random, and are of no use without the others.",
            f"# With the parts of {' and '.join(others)}, each let go by its owner, it is this value, exactly:",
        ]
        code = "\n".join([*head, *self._told(made), found["code"]])
        if len(code) > MAX_STORY:
            code = f"{code[:MAX_STORY]}\n# and more: it is longer than a request"
        return {**found, "code": code}

    def _told(self, made: Made) -> list[str]:
        """How the owner's own values came to be, of which this was made; all of them, where that is no longer known."""
        seen: set[int] = set()
        todo, cut = [made], False
        while todo:
            one = todo.pop()
            if id(one) not in seen:
                seen.add(id(one))
                cut = cut or one.text.startswith("earlier steps")
                todo += one.past or ()
        return [story for source, story in self._stories if cut or id(source) in seen]

    def fetch(self, number: int, start: int, length: int, private: bool = False) -> memoryview:
        """Bytes of a public value; of shares of the analyst's own, this party's part as int64."""
        held = self._get(number)
        if held.spec.label.kind != "public":
            raise PrivateValueError("this value is of owners' data: x.request(reason=…) asks all of them to open it")
        if not isinstance(held.tensor, Share):
            return super().fetch(number, start, length)
        self._settle(number, held.tensor)
        if start == 0 or self._flat is None or self._flat[0] is not held:
            self._flat = held, as_bytes(held.tensor.shared.own.cpu())
        part = self._flat[1][start : start + length]
        return memoryview(part.numpy())

    def _settle(self, number: int, share: Share) -> None:
        """Do what was put off of a value that is fetched: in a turn of its own, for the parties send each other messages."""
        self._agreed()
        if share.put_off:
            with self._turn("fetch", number):
                share.settle()

    def open(self, number: int) -> memoryview:
        """The part of a value that this party gives (`aby3.vouch`), as bytes; empty where an input was lost.

        Raises PartnerError where the parties were not all asked the same.
        """
        self._agreed()
        with self._turn("open", number):
            held, party = self._get(number), self.fixed.party
            if not isinstance(held.tensor, Share):
                raise UsageError("this value is public, and the same at all owners")
            part = give(party, held.tensor.shared)
            for other in party.links:
                party.send(other, torch.zeros(1, dtype=torch.uint8))
            for other in party.links:
                party.receive(other, (1,), torch.uint8)
            return memoryview(b"" if held.why else part.to_bytes())

    def hand(self, owner: int, to: int, size: int, what: Sequence[Any], data: memoryview | None) -> memoryview:
        """Bytes that one owner hands to another over their link; the third sees nothing of them. Gives them at the other.

        They begin with a 1, or a 0 where there is nothing to be had. ``what`` they are (dtype, shape), all must be told alike.
        """
        with self._turn("hand", owner, to, size, list(what)):
            party = self.fixed.party
            if data is not None and party.index == owner:
                party.send(to, torch.frombuffer(bytearray(data), dtype=torch.uint8))
            if party.index != to:
                return memoryview(b"")
            self._room(size)
            return memoryview(party.receive(owner, (size,), torch.uint8).cpu().numpy())

    def aggregate(self, number: int) -> dict[str, Any]:
        """Refused: noise on shares is not there yet."""
        raise PrivateValueError("a shared value has no release under noise: x.request(reason=…) asks its owners to open it")

    def stats(self) -> dict[str, int]:
        """How much is held, sent, and waited for."""
        online = self.fixed.party.online
        return {**super().stats(), "sent": online.bytes, "messages": online.messages, "rounds": online.rounds}
