"""Runs operations as an owner does, on arguments that end where memory does: who reads past them dies.

    python -m tests.attacks.memory [--trusting]

Calls are those that torch's samples make, forward and backward; then with one argument too small, too large, another number,
or places that are out of range. They run in a child, and after one that died in another. Prints a line of JSON for each of those: its
name, and the arguments.
``--trusting`` leaves the owner's own checks out.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from syft_lab import ops
from syft_lab.kernel.executor import unchecked
from syft_lab.kernel.executor.runner import Quota
from tests.tensors import LocalTape

PAGE, CALLS, SAMPLES, MOST = mmap.PAGESIZE, 2, 4, 1 << 16
FAR = 10**9
aten = torch.ops.aten
LIBC = ctypes.CDLL(None, use_errno=True)


def fenced(t):
    """The same values, contiguous, with a page after them, and one before, that nobody may touch."""
    size = t.numel() * t.element_size()
    room = -(-size // PAGE) * PAGE
    memory = mmap.mmap(-1, room + 2 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (start, start + PAGE + room):
        assert LIBC.mprotect(ctypes.c_void_p(page), PAGE, 0) == 0
    if not size:
        return t.contiguous()
    held = (ctypes.c_char * size).from_address(start + PAGE + room - size)
    held.memory = memory
    made = torch.frombuffer(held, dtype=t.dtype).view(t.shape)
    return made.copy_(t)


class Calls(TorchDispatchMode):
    """Keeps some calls of each operation of the table, by name."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kept = self.found.setdefault(str(func), [])
        tensors = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)]
        plain = all(t.layout is torch.strided and t.numel() <= MOST and t.device.type == "cpu" for t in tensors)
        if len(kept) < CALLS and tensors and plain and not func._schema.is_mutable and ops.packet(str(func)) in ops.ALLOWED:
            copied = tree_map(
                lambda t: t.detach().clone() if isinstance(t, torch.Tensor) else t, (list(args), dict(kwargs or {}))
            )
            kept.append((func, *copied))
        return func(*args, **(kwargs or {}))


def calls():
    """What torch's samples call, forward and backward: {operation: [(operation, arguments, named ones)]}.

    Running them takes half a minute, so they are kept in a file for all who need them, for as long as torch and this file are
    what they are.
    """
    now = hashlib.sha256(torch.__version__.encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    kept = Path(__file__).parents[2] / ".pytest_cache" / f"calls-{now}.pt"
    kept.parent.mkdir(exist_ok=True)
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            plain = [(name, [tree_map(_said, call[1:]) for call in made]) for name, made in _made().items()]
            torch.save(plain, kept.with_suffix(".part"))
            kept.with_suffix(".part").rename(kept)
        found = torch.load(kept, weights_only=False)
    return {name: [(_named(name), *tree_map(_meant, call)) for call in made] for name, made in found}


FORMATS = {f"the {f}": f for f in (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)}


def _said(leaf):
    """In place of what can't be written to a file."""
    return f"the {leaf}" if isinstance(leaf, torch.memory_format) else leaf


def _meant(leaf):
    return FORMATS.get(leaf, leaf) if isinstance(leaf, str) else leaf


def _named(name):
    _, packet, overload = name.split(".")
    return getattr(getattr(aten, packet), overload)


def _made():
    from torch.testing._internal.common_methods_invocations import op_db  # seconds

    found = Calls()
    with found:
        by_hand()
    for op in op_db:
        dtypes = op.supported_dtypes("cpu")
        kind = next((d for d in (torch.float32, torch.int64) if d in dtypes), None)
        if kind is None:
            continue
        with contextlib.suppress(Exception):
            for sample, _ in zip(op.sample_inputs_func(op, "cpu", kind, kind is torch.float32), range(SAMPLES), strict=False):
                with contextlib.suppress(Exception), found:
                    made = op(sample.input, *sample.args, **sample.kwargs)
                    first = next(t for t in tree_leaves(made) if t.requires_grad)
                    first.sum().backward()
    return {name: kept for name, kept in found.found.items() if kept}


def by_hand():
    """Calls that torch's samples don't make, or make by other operations on some processors."""
    q, k = (torch.rand(2, 3, n, 8, requires_grad=True) for n in (5, 7))
    aten._scaled_dot_product_flash_attention_for_cpu(q, k, k)[0].sum().backward()
    planes, volumes = (torch.rand(2, 3, *sides, requires_grad=True) for sides in ((5, 6), (4, 5, 6)))
    for x in (planes, volumes):
        for mode in ("nearest", "nearest-exact"):
            F.interpolate(x, scale_factor=2, mode=mode).sum().backward()
        for mode in ("reflect", "replicate"):
            F.pad(x, [1, 2] * (x.dim() - 2), mode).sum().backward()
    weight, channels = torch.rand(6, requires_grad=True), torch.rand(3)
    F.rms_norm(planes, (6,), weight).sum().backward()
    aten._fused_rms_norm(planes, [6], weight, 1e-5)[0].sum().backward()
    torch._weight_norm(torch.rand(4, 5, requires_grad=True), torch.rand(4, 1, requires_grad=True), 0).sum().backward()
    aten._native_batch_norm_legit_no_training(planes, channels, channels, channels, channels, 0.1, 1e-5)
    aten._native_batch_norm_legit_functional(planes, channels, channels, channels, channels, True, 0.1, 1e-5)
    aten._native_batch_norm_legit.no_stats(planes, channels, channels, True, 0.1, 1e-5)
    places = torch.tensor([0, 2, 1])
    for scores, classes in (
        (torch.rand(3, 4, requires_grad=True), places),
        (torch.rand(2, 3, 4, 5, requires_grad=True), torch.zeros(2, 4, 5).long()),
    ):
        F.nll_loss(scores, classes, reduction="none").sum().backward()
    aten.cummaxmin_backward(torch.rand(3), torch.rand(3), places, 0)
    aten._unsafe_index(torch.rand(3, 4), [places])
    aten._unsafe_index_put(torch.rand(3, 4), [places], torch.rand(3, 4), True)
    aten._index_put_impl(torch.rand(3, 4), [places], torch.rand(3, 4), True, False)


def spoiled(t):
    """Others in its place."""
    if t.dim():
        yield t.reshape(-1)[:1].view([1] * t.dim()) if t.numel() else torch.ones([1] * t.dim(), dtype=t.dtype)
        yield t.repeat(*[40] * min(t.dim(), 2), *[1] * (t.dim() - 2)) if t.numel() < 4096 else t.repeat(4, *[1] * (t.dim() - 1))
    for dim in range(t.dim()):
        if t.shape[dim] > 1:
            yield t.narrow(dim, 0, 1)
    if t.dtype in (torch.int64, torch.int32):
        yield from (torch.full_like(t, place) for place in (FAR, -FAR, -1))


def variants(args, kwargs):
    leaves, spec = tree_flatten((args, kwargs))
    yield args, kwargs
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            for other in spoiled(leaf):
                yield tree_unflatten([*leaves[:i], other, *leaves[i + 1 :]], spec)
        elif type(leaf) is int:
            for number in (leaf * 50 + 7, -1, 0):
                yield tree_unflatten([*leaves[:i], number, *leaves[i + 1 :]], spec)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.int64, torch.int32)]
    for i in places:  # what looks at them with one setting need not with another
        for j, leaf in enumerate(leaves):
            for other in (not leaf,) if type(leaf) is bool else {0, 1, 2} - {leaf} if type(leaf) is int else ():
                for far in (FAR, -FAR):
                    changed = {i: torch.full_like(leaves[i], far), j: other}
                    yield tree_unflatten([changed.get(n, leaf) for n, leaf in enumerate(leaves)], spec)


def attempt(func, args, kwargs):
    """Have an owner run it; what is refused is."""
    tape = LocalTape(Quota(memory=64 << 20))

    def sent(t):
        if not isinstance(t, torch.Tensor):
            return t
        pointer = tape.send(t.contiguous())
        tape.runner.space.held[pointer.current.number].tensor = fenced(t)
        return pointer

    pointers = tree_map(sent, (args, kwargs))
    with contextlib.suppress(Exception):
        made = func(*pointers[0], **pointers[1])
        tape.flush()
        for each in tree_leaves(made):
            each.detach()


def run(name, kept, out):
    """All variants of an operation's calls, each told of before."""
    for func, args, kwargs in kept:
        for some, named in variants(args, kwargs):
            said = [list(t.shape) if isinstance(t, torch.Tensor) else repr(t)[:40] for t in tree_leaves((some, named))]
            os.write(out, (json.dumps({"op": name, "arguments": said}) + "\n").encode())
            attempt(func, some, named)


def main():
    if "--trusting" in sys.argv:
        unchecked._SIZES.clear()
        unchecked.within = lambda *_: None
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wanted = [a for a in sys.argv[1:] if not a.startswith("-")]
    tried = {name: kept for name, kept in sorted(calls().items()) if not wanted or ops.packet(name) in wanted}
    left = list(tried)
    while left:
        seen, out = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for name in left:
                run(name, tried[name], out)
            os._exit(0)
        os.close(out)
        with os.fdopen(seen) as told:
            last = json.loads(told.read().splitlines()[-1])
        _, status = os.waitpid(pid, 0)
        if status:
            print(json.dumps(last), flush=True)
        left = left[left.index(last["op"]) + 1 :] if status else []
    print(json.dumps({"tried": len(tried)}), flush=True)


if __name__ == "__main__":
    main()
