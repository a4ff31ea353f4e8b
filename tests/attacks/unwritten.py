"""Runs operations as an owner does, on public inputs, while the C library fills fresh and freed memory with a pattern.

    python -m tests.attacks.unwritten [--zeroed | --laid_out | --modes] [operation …]

Calls are those of torch's samples (`memory.calls`), some by hand, and variants of them: all zeros, NaN, another dtype, a
length of 0. Each runs in memory full of one byte, then of another. Prints lines of JSON: an operation whose public outputs
differ between the two, or hold the pattern, or that ended the process (``empty``: while lengths of 0 were tried too), and
last the operations whose outputs were compared. An option leaves out that defence of the owner's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import warnings

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from syft_lab import ops, plans
from syft_lab.errors import LabError
from syft_lab.kernel.executor import compiled, trial, unchecked
from syft_lab.kernel.executor.runner import Quota, Runner
from syft_lab.labels import PUBLIC
from syft_lab.plans import Mark, Node, Plan, Ref
from syft_lab.spec import Spec, looks

M_MMAP_THRESHOLD, RUN = -3, 8  # so many bytes of the pattern in a row are no accident
BYTES = (0x5A, 0x13)
VARIANTS = (torch.bfloat16, torch.complex64)
aten = torch.ops.aten


def filled(byte):
    """Have the C library fill memory with ``byte``; large pieces too come from its heap then."""
    trial._LIBC.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    trial._perturb(byte)


def fills():
    """Whether that works here: the memory of `torch.empty` holds the pattern."""
    filled(BYTES[0])
    try:
        return set(torch.empty(1000, dtype=torch.uint8)[-500:].tolist()) <= {BYTES[0], BYTES[0] ^ 0xFF}
    finally:
        trial._perturb(0)


def written(arg):
    """An argument that is no tensor, as plans write it."""
    if isinstance(arg, torch.dtype):
        return Mark("t", str(arg).removeprefix("torch."))
    if isinstance(arg, torch.memory_format):
        return Mark("m", str(arg).removeprefix("torch."))
    if isinstance(arg, torch.layout):
        return Mark("l", str(arg).removeprefix("torch."))
    return Mark("d", "owner") if isinstance(arg, torch.device) else arg


def lists(arg):
    return [lists(a) for a in arg] if isinstance(arg, list | tuple) and type(arg) not in (Ref, Mark) else arg


def planned(func, args, kwargs):
    """The plan of one operation, and its tensors: (None, []) where the table refuses it."""
    leaves, form = tree_flatten((list(args), dict(kwargs)))
    given = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if any(t.layout is not torch.strided or t.device.type != "cpu" for t in given):
        return None, []
    count = iter(range(len(given)))
    refs = [Ref(next(count)) if isinstance(leaf, torch.Tensor) else written(leaf) for leaf in leaves]
    there, named = tree_unflatten(refs, form)
    looked, by_name = tree_unflatten(
        [Spec.of(leaf, PUBLIC, 0) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], form
    )
    named = {k: lists(v) for k, v in named.items() if k != "device" and k != "pin_memory" and v is not None}
    by_name = {k: torch.device("meta") if k == "device" else v for k, v in by_name.items()}
    if not given:
        by_name["device"] = torch.device("meta")
    try:
        found, _ = looks(func, looked, by_name)
    except Exception:
        return None, []
    if ops.is_random(str(func)):
        named["seed"] = 1
    outs, number = [], len(given)
    for spec in found:
        outs.append(None if spec is None else number)
        number += spec is not None
    told = [o for o in outs if o is not None]
    return Plan.of([Node(str(func), tuple(lists(there)), named, tuple(outs))], range(len(given)), told), given


def outputs(plan, given, byte, keep=False):
    """Bytes of each output as they travel, and of all memory in it that a plan can address; words where it failed."""
    filled(byte)
    try:
        runner = Runner("cpu", Quota(memory=256 << 20))
        for i, tensor in enumerate(given):
            runner.load(i, tensor, PUBLIC.to_json(), "given")
        numbers = list(range(1000, 1000 + len(plan.outputs)))
        run = {"inputs": list(range(len(given))), "outputs": numbers, "free": [], "seeds": list(plan.seeds)}
        lost = runner.run(plans.parse(plan.canonical), run, plan.digest, keep)["lost"]
        return lost or [told for n in numbers for told in reached(runner, n)]
    except LabError as error:
        return str(error)
    finally:
        trial._perturb(0)


def reached(runner, number):
    """Bytes that `get` gives of a value, and of a row of all places that `as_strided` may read in it."""
    runner.tried(runner.owed(number))  # the trial is another wall: this one stands by itself
    held = runner.space.held[number]
    assert held.spec.label == PUBLIC
    yield bytes(runner.fetch(number, 0, 1 << 40))
    if held.spec.span > math.prod(held.spec.shape):
        whole = Plan.of([Node("aten.as_strided.default", (Ref(0), [held.spec.span], [1]), {}, (1,))], [0], [1])
        found = runner.run(whole, {"inputs": [number], "outputs": [number + 1000], "free": [], "seeds": []}, whole.digest)
        assert found == {"lost": ""}, found
        runner.tried(runner.owed(number + 1000))
        yield bytes(runner.fetch(number + 1000, 0, 1 << 40))


def judged(func, args, kwargs, keeps=(False, True)):
    """What is wrong with an operation's outputs: '' for nothing, None where none came out."""
    plan, given = planned(func, args, kwargs)
    if plan is None:
        return None
    for keep in keeps:
        found = [outputs(plan, given, byte, keep) for byte in BYTES]
        if isinstance(found[0], str) or isinstance(found[1], str):
            return None if found[0] == found[1] else "whether it fails, or what it says then, is of what lay in memory"
        if found[0] != found[1]:
            return "its outputs differ with what lay in memory"
        into = b"\0".join(
            bytes(t.contiguous().resolve_conj().resolve_neg().view(-1).view(torch.uint8).numpy()) for t in given if t.numel()
        )
        for byte in BYTES:
            for pattern in (bytes([byte]) * RUN, bytes([byte ^ 0xFF]) * RUN):
                if pattern not in into and any(pattern in out for out in found[0]):
                    return "its outputs hold the pattern"
    return ""


def changed(args, kwargs, change):
    leaves, form = tree_flatten((args, kwargs))
    return tree_unflatten([change(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], form)


def retyped(args, kwargs, dtype):
    """With floats of another type, also where a type is an argument of its own."""
    leaves, form = tree_flatten((args, kwargs))

    def other(leaf):
        if isinstance(leaf, torch.Tensor) and leaf.dtype is torch.float32:
            return leaf.to(dtype)
        return dtype if leaf is torch.float32 else leaf

    return tree_unflatten([other(leaf) for leaf in leaves], form)


def variants(args, kwargs, first, empty):
    """Other arguments like these: of odd values, of other types, and where ``empty`` with nothing along some axis. Of one call each."""
    yield args, kwargs
    if not first:
        return
    floats = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    if floats:
        yield changed(args, kwargs, lambda t: torch.zeros_like(t) if t.is_floating_point() else t)
        yield changed(args, kwargs, lambda t: torch.full_like(t, math.nan) if t.is_floating_point() else t)
    if floats:
        for dtype in VARIANTS:
            yield retyped(args, kwargs, dtype)
    leaves, form = tree_flatten((args, kwargs))
    for i in [i for i, leaf in enumerate(leaves) if type(leaf) is int]:  # axes, modes, sizes that no caller of torch's gives
        for number in (-1, 7):
            yield tree_unflatten([*leaves[:i], number, *leaves[i + 1 :]], form)
    lengths = sorted({n for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) for n in t.shape if n})[:2]
    for length in lengths if empty else ():
        yield changed(args, kwargs, lambda t, n=length: t[tuple(slice(0, 0) if s == n else slice(None) for s in t.shape)])
    yield changed(args, kwargs, lambda t: t.mT if t.dim() > 1 and t.shape[-1] == t.shape[-2] else t)


def by_hand():
    """Calls of operations that torch composes of others, which a plan may name as they are, and of those that only make something."""
    x, y, c, n = torch.rand(3, 4), torch.rand(3, 4), torch.randn(3, 4, dtype=torch.complex64), torch.tensor([2, 0, 1])
    square, image, lstm = torch.rand(4, 4), torch.rand(1, 3, 4, 4), torch.rand(3, 16)
    gates = torch.rand(3, 12)
    q, gaps = torch.rand(1, 2, 5, 8), torch.zeros(100).as_strided((2,), (99,))
    yield from [(getattr(aten, name).default, [x], {}) for name in (
        "absolute conj_physical detach_copy imag isfinite lift linalg_solve_ex negative positive real relu6 resolve_conj resolve_neg "
        "selu square zero argsort _conj _neg_view".split() ) if name not in ("imag", "linalg_solve_ex", "_conj")]  # fmt: skip
    yield from [
        (getattr(aten, name).default, [c], {})
        for name in ("imag", "real", "conj", "_conj", "resolve_conj", "_neg_view", "conj_physical")
    ]
    yield from [(getattr(aten, f"__{name}__").Tensor, [n, n], {}) for name in ("and", "or", "xor")]
    yield from [(func, args, {}) for func, args in (
        (aten._euclidean_dist.default, [x, y]), (aten._fused_rms_norm.default, [x, [4], torch.rand(4), 1e-5]),
        (aten._fused_rms_norm_backward.default, [x, y, [4], torch.rand(3, 1), torch.rand(4), [True, True]]),
        (aten._scaled_dot_product_attention_math.default, [q, q, q]), (aten._thnn_fused_gru_cell.default, [gates, gates, x]),
        (aten._thnn_fused_lstm_cell.default, [lstm, lstm, x]), (aten.adaptive_avg_pool1d.default, [x, [2]]), (aten.avg_pool1d.default, [x, [2]]),
        (aten.arange.start_step, [0, 7, 2]), (aten.arange.default, [5]), (aten.copy.default, [x, y]), (aten.cross.default, [x.T, y.T, 1]), (aten.cummaxmin_backward.default, [x[0, :3], y[0, :3], n, 0]),
        (aten.cumulative_trapezoid.x, [x, y]), (aten.diff.default, [x]), (aten.empty.memory_format, [[5, 7]]), (aten.empty_permuted.default, [[5, 7], [1, 0]]),
        (aten.empty_strided.default, [[2, 3], [40, 7]]), (aten.empty_like.default, [x]), (aten.empty_like.default, [x.T]), (aten.new_empty.default, [x, [9, 9]]), (aten.new_empty_strided.default, [x, [2, 3], [50, 9]]),
        (aten.eye.default, [5]), (aten.eye.m, [3, 5]), (aten.fft_fftfreq.default, [9]), (aten.full.default, [[3, 4], 2.0]), (aten.ger.default, [x[0], y[0]]), (aten.outer.default, [x[0], y[0]]),
        (aten.hann_window.default, [9]), (aten.linalg_solve_ex.default, [square, square]), (aten.linear.default, [x, y]), (aten.log_softmax.int, [x, 1]), (aten.softmax.int, [x, 1]), (aten.movedim.int, [x, 0, 1]),
        (aten.ones.default, [[3]]), (aten.zeros.default, [[3, 4]]), (aten.scalar_tensor.default, [2.0]), (aten.tril_indices.default, [4, 4]), (aten.triu_indices.default, [4, 4]), (aten.reshape.default, [x, [12]]),
        (aten.select_copy.int, [x, 0, 1]), (aten.slice_copy.Tensor, [x, 1, 1, 3]), (aten.split_copy.Tensor, [x, 2]), (aten.swapaxes.default, [x, 0, 1]), (aten.true_divide.Tensor, [x, y]),
        (aten.unsafe_split_with_sizes.default, [x, [1, 2]]), (aten.linalg_lstsq.default, [square, square]), (aten.linalg_inv_ex.default, [torch.zeros(3, 3)]), (aten.linalg_cholesky_ex.default, [-torch.eye(3)]),
        (aten.linalg_ldl_factor_ex.default, [torch.zeros(3, 3)]), (aten.linalg_qr.default, [torch.rand(5, 3), "complete"]), (aten._linalg_svd.default, [torch.rand(5, 3), True]), (aten._linalg_svd.default, [torch.rand(5, 3), False, False]),
        (aten._native_batch_norm_legit_no_training.default, [image, None, None, torch.rand(3), torch.rand(3), 0.1, 1e-5]), (aten._native_batch_norm_legit.no_stats, [image, None, None, True, 0.1, 1e-5]),
        (aten.native_layer_norm.default, [torch.rand(3, 0), [0], None, None, 1e-5]), (aten.native_group_norm.default, [torch.rand(2, 4, 0), None, None, 2, 4, 0, 2, 1e-5]), (aten.native_group_norm.default, [torch.rand(2, 4, 3), None, None, 2, 4, 3, 2, 1e-5]),
        (aten.mm.default, [torch.rand(3, 0), torch.rand(0, 4)]), (aten.bmm.default, [torch.rand(2, 3, 0), torch.rand(2, 0, 4)]), (aten.addmm.default, [x, torch.rand(3, 0), torch.rand(0, 4)]), (aten.mv.default, [torch.rand(3, 0), torch.rand(0)]),
        (aten.addmv.default, [x[:, 0], torch.rand(3, 0), torch.rand(0)]), (aten.baddbmm.default, [torch.rand(2, 3, 4), torch.rand(2, 3, 0), torch.rand(2, 0, 4)]), (aten._cdist_forward.default, [torch.rand(3, 0), torch.rand(4, 0), 2.0, None]), (aten._pdist_backward.default, [torch.rand(3), torch.rand(3, 4), 2.0, torch.rand(3)]),
        (aten.dot.default, [torch.rand(0), torch.rand(0)]), (aten.linalg_lu.default, [torch.rand(5, 3)]), (aten.linalg_lu_factor_ex.default, [torch.zeros(3, 3)]), (aten.new_empty_strided.default, [x.to(torch.complex64), [2, 3], [50, 9]]),
        (aten.as_strided.default, [x, [2, 2], [5, 2], 1]), (aten.as_strided_copy.default, [x, [2, 2], [5, 2], 1]), (aten.as_strided_scatter.default, [x, torch.rand(2, 2), [2, 2], [5, 2], 1]),
        (aten.as_strided_scatter.default, [gaps, torch.ones(2), [2], [99]]), (aten.copy.default, [gaps, torch.ones(2)]), (aten.select_scatter.default, [gaps, torch.tensor(1.0), 0, 1]),
        (aten.resolve_neg.default, [x]),
    )]  # fmt: skip
    yield from [(func, args, {}) for func, args in (
        (aten.cauchy.default, [x]), (aten.exponential.default, [x]), (aten.geometric.default, [x, 0.5]), (aten.log_normal.default, [x]), (aten.native_dropout.default, [x, 0.5, True]), (aten.normal_functional.default, [x]),
        (aten.poisson.default, [x]), (aten.rand.default, [[3, 4]]), (aten.rand_like.default, [x]), (aten.randint.default, [9, [5]]), (aten.randn.default, [[5, 3]]), (aten.random.from_, [x, 0, 9]) if hasattr(aten.random, "from_") else (aten.random.default, [x]),
        (aten.randperm.default, [9]), (aten.uniform.default, [x]), (aten.native_dropout.default, [x, 0.0, True]), (aten.native_dropout.default, [x, 0.5, False]), (aten.bernoulli.p, [x, 0.5]), (aten.multinomial.default, [x, 2]), (aten.randint_like.default, [x, 9]),
    )]  # fmt: skip


def named_calls(wanted=()):
    """All calls, by the operation that they are of."""
    from tests.attacks import memory

    found = {}
    for func, args, kwargs in [call for kept in memory.calls().values() for call in kept] + list(by_hand()):
        if not wanted or ops.packet(str(func)) in wanted:
            found.setdefault(str(func), []).append((func, args, kwargs))
    return found


def tried(name, kept, empty):
    """Try an operation's calls and variants of them: whether some outputs came, and what was wrong, with sizes."""
    came, wrong = False, []
    for i, (func, args, kwargs) in enumerate(kept):
        made = ops.packet(name) in ops.SHAPE_ONLY | ops.RANDOM
        for j, (some, named) in enumerate([(args, kwargs)] if made else variants(args, kwargs, i == 0, empty)):
            why = None
            with contextlib.suppress(RuntimeError, IndexError, NotImplementedError, TypeError, ValueError):
                why = judged(func, some, named, (False, True) if j == 0 else (False,))
            came |= why is not None
            if why:
                told = [list(t.shape) if isinstance(t, torch.Tensor) else repr(t)[:30] for t in tree_leaves((some, named))]
                wrong.append([why, told])
    return came, wrong


def planted(name):
    """Leave out zeros in memory that nobody filled (``zeroed``), only those between entries, or looking at ``modes`` and axes."""
    real = compiled._caller

    def careless(op, func, random, specs, outs, device):
        plain = ops.packet(op).startswith(("empty", "new_empty"))
        return (lambda args, kwargs, seed: (func(*args, **kwargs),)) if plain else real(op, func, random, specs, outs, device)

    def loose(tensor, spec):
        return torch.empty_strided(spec.shape, spec.stride, dtype=tensor.dtype).copy_(tensor)

    if name == "modes":
        unchecked._CHOICES, unchecked._AXES = {}, frozenset()
    elif name == "zeroed":
        compiled._caller = careless
    else:
        compiled.laid_out = loose


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for option in [a for a in sys.argv if a in ("--zeroed", "--laid_out", "--modes")]:
        planted(option[2:])
    calls = named_calls({a for a in sys.argv[1:] if not a.startswith("-")})
    left, names = [(name, True) for name in calls], set()
    while left:  # in a child, and after one that died in another
        seen, out = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for name, empty in left:
                os.write(out, (json.dumps({"begun": [name, empty]}) + "\n").encode())
                came, wrong = tried(name, calls[name], empty)
                os.write(out, (json.dumps({"op": name, "came": came, "wrong": wrong}) + "\n").encode())
            os._exit(0)
        os.close(out)
        with os.fdopen(seen) as told:
            lines = [json.loads(line) for line in told.read().splitlines()]
        _, status = os.waitpid(pid, 0)
        for line in lines:
            if line.get("came"):
                names.add(ops.packet(line["op"]))
            if line.get("wrong"):
                print(json.dumps(line))
        begun = tuple([line["begun"] for line in lines if "begun" in line][-1])
        left = left[left.index(begun) + 1 :] if status else []
        if status:
            print(json.dumps({"op": begun[0], "died": status, "empty": begun[1]}))
            left += [(begun[0], False)] if begun[1] else []
    print(json.dumps({"reached": sorted(names), "never": sorted(ops.ALLOWED - names)}), flush=True)


if __name__ == "__main__":
    main()
