"""Operations on values that torch fails on: which there are, what a runner does, and what an analyst sees of two neighbours.

    python -m tests.attacks.failing [--identity | --values | --apart [--unguarded]] [operation …]

Runs every overload that has a rule of labels on wild private records, in forked children, so that one which ends the process
is a result. Prints a line of JSON for each that fails, is lost, or fills entries where it should not, and last how many were tried.
``--identity`` leaves `total` out, as if it were not there. ``--values`` prints instead, of all `candidates`, which fail on values,
and ``--apart`` those that mix records where they run for each (``--unguarded``: as torch does).
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import itertools
import json
import math
import os
import sys
import warnings

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from syft_lab import labels, ops, plans
from syft_lab.errors import LabError
from syft_lab.kernel.executor import total
from syft_lab.kernel.executor.runner import Quota, Runner
from syft_lab.labels import PUBLIC
from syft_lab.plans import EACH, Body, Node, Plan, Ref
from tests.attacks import unwritten
from tests.tensors import LocalTape

aten = torch.ops.aten
DTYPES = (torch.int64, torch.int8, torch.uint8, torch.float32, torch.bool)
MIXED = (
    (torch.int64, torch.float32),
    (torch.float32, torch.int64),
    (torch.int32, torch.int64),
    (torch.int64, torch.bool),
    (torch.uint8, torch.int8),
)
ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1.0, 3e38, -3e38, 1e-45, 2.5)
N = 6


# Values


def drawn(dtype, shape, how, seed=0):
    """Tame values (1 and 2), or wild ones."""
    g = torch.Generator().manual_seed(seed)

    def chosen(pool):
        return pool[torch.randint(len(pool), shape, generator=g)]

    if dtype is torch.bool:
        return torch.rand(shape, generator=g) < 0.5
    if dtype.is_floating_point:
        return chosen(torch.tensor((1.0, 2.0) if how == "tame" else ODD)).to(dtype)
    ends = torch.iinfo(dtype)
    minus = max(-1, ends.min)
    pool = {
        "tame": [1, 2],
        "least": [ends.min, minus, minus],
        "zero": [0],
        "wild": [ends.min, ends.max, 0, 1, minus, 2, 7, 100],
    }
    return chosen(torch.tensor(pool[how])).to(dtype)


# Every overload that has a rule


SHAPES = {
    "mm": [(N, 3), (3, 4)], "mv": [(N, 3), (3,)], "addmm": [(4,), (N, 3), (3, 4)], "bmm": [(N, 2, 3), (N, 3, 2)], "baddbmm": [(N, 2, 2), (N, 2, 3), (N, 3, 2)],
    "convolution": [(N, 3, 5, 5), (2, 3, 2, 2), (2,)], "max_pool2d_with_indices": [(N, 3, 6, 6)], "avg_pool2d": [(N, 3, 6, 6)], "_adaptive_avg_pool2d": [(N, 3, 6, 6)],
    "embedding": [(4, 3), (N, 2)], "index_select": [(N, 4), (2,)], "native_layer_norm": [(N, 4), (4,), (4,)],
    "_native_batch_norm_legit_no_training": [(N, 3, 2), (3,), (3,), (3,), (3,)], "_prelu_kernel": [(N, 3), (1, 3)], "squeeze": [(N, 1, 3)],
}  # fmt: skip
ARGUMENTS = {
    "convolution": [[1, 1], [0, 0], [1, 1], False, [0, 0], 1], "max_pool2d_with_indices": [[2, 2]], "avg_pool2d": [[2, 2]], "_adaptive_avg_pool2d": [[2, 2]],
    "view": [[N, 1, 3]], "_unsafe_view": [[N, 1, 3]], "reshape": [[N, 1, 3]], "permute": [[0, 1]], "expand": [[N, 3]], "split": [2, 1], "split_with_sizes": [[1, 2], 1],
    "_native_batch_norm_legit_no_training": [0.1, 1e-5],
}  # fmt: skip


def arguments(func, number):
    """Arguments of an overload, with None for each tensor, and those tensors' shapes; None where it has none that are easily made."""
    name, made, shapes = ops.packet(str(func)), [], []
    known = iter(SHAPES.get(name, []))
    own = iter(ARGUMENTS.get(name, []))
    kwargs = {}
    for arg in func._schema.arguments:
        kind = str(arg.type)
        if arg.kwarg_only:
            if arg.name == "rounding_mode":
                kwargs["rounding_mode"] = number
            continue
        if kind in ("Tensor", "Optional[Tensor]", "List[Tensor]"):
            if arg.has_default_value() and name not in SHAPES:
                break
            shapes.append(next(known, (N, 3)))
            made.append([None] if kind == "List[Tensor]" else None)
        elif name in ARGUMENTS:
            given = next(own, None)
            if given is None:
                break
            made.append(given)
        elif name == "index_select":
            made.append(1)
        elif arg.has_default_value() and arg.name not in ("dim", "min", "max", "other", "exponent"):
            break
        elif kind in ("number", "float", "Optional[number]", "Optional[float]"):
            made.append(number if type(number) in (int, float) else 1)
        elif kind in ("int", "Optional[int]", "SymInt"):
            made.append(1)
        elif kind == "bool":
            made.append(False)
        elif "List[int]" in kind or "SymInt" in kind:
            made.append([4] if name == "native_layer_norm" else [1])
        else:
            return None
    return (made, kwargs, shapes) if shapes else None


def overloads():
    """Those with a rule, and what is tried as their number or rounding."""
    for name in sorted(labels._RULES):
        packet = getattr(aten, name, None)
        for overload in [] if packet is None else packet.overloads():
            func = getattr(packet, overload)
            if func._schema.is_mutable or overload.endswith("out") or "Dimname" in str(func._schema) or "str" in overload:
                continue
            kinds = [str(a.type) for a in func._schema.arguments]
            if "rounding_mode" in [a.name for a in func._schema.arguments]:
                yield func, ("trunc", "floor")
            else:
                yield func, ((0, -1, 2, 0.5) if any(k in ("number", "float", "Optional[number]") for k in kinds) else (None,))


class Sweep:
    """Runs one-operation plans on private records; ``found`` says what went wrong, ``runs`` and ``kept`` how many kept rows."""

    def __init__(self):
        self.found, self.runs, self.kept = [], 0, 0

    def overload(self, func, number):
        made = arguments(func, number)
        if made is None:
            return
        args, kwargs, shapes = made
        kinds = [(d,) * len(shapes) for d in DTYPES] + (
            [(a, *[b] * (len(shapes) - 1)) for a, b in MIXED] if len(shapes) > 1 else []
        )
        places = range(len(shapes))
        secret = [{i} for i in places if len(shapes[i]) > 1 or i == 0] + ([set(places)] if len(shapes) > 1 else [])
        for dtypes, private in itertools.product(kinds, secret):
            if func is aten.embedding.default:
                dtypes = (torch.float32, dtypes[1])
            if func is aten.index_select.default:
                dtypes = (dtypes[0], torch.int64)
            self.values(func, args, kwargs, shapes, dtypes, private)

    def values(self, func, args, kwargs, shapes, dtypes, private):
        count = itertools.count()

        def placed(arg):
            return (
                Ref(next(count)) if arg is None else [placed(a) for a in arg] if isinstance(arg, list) and None in arg else arg
            )

        node_args = tuple(map(placed, args))
        outs = (
            len(func._schema.returns) if "List" not in str(func._schema.returns[0].type) else 3 if "unbind" in str(func) else 2
        )
        node = Node(str(func), node_args, kwargs, tuple(range(len(shapes), len(shapes) + outs)))
        plan = plans.parse(Plan.of([node], range(len(shapes)), node.outs).canonical)
        told, runner = set(), Runner("cpu", Quota())
        whole = [i for i in private if not (dtypes[i].is_floating_point or dtypes[i] is torch.bool)]
        for seed, how in enumerate(("tame", "wild", "least", "zero", "wild") if whole else ("tame", "wild", "wild")):
            at = 1000 * (seed + 1)
            for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True)):
                rows = i in private
                kind = how if rows and (i in whole or how == "tame") else "wild" if rows else "tame"
                label = labels.rows("d v1", 1) if rows else PUBLIC
                runner.load(at + i, drawn(dtype, shape, kind, 100 * seed + i), label.to_json(), "d v1")
            numbers = [at + 500 + i for i in range(outs)]
            run = {"inputs": [at + i for i in range(len(shapes))], "outputs": numbers, "free": [], "seeds": []}
            said = [str(func), kwargs, [str(d)[6:] for d in dtypes], sorted(private), how, [a for a in args if a is not None]]
            try:
                told.add(runner.run(plan, run, plan.digest)["lost"])
            except Exception as error:
                self.found.append(["raised", f"{type(error).__name__}: {error}"[:200], *said])
                return
            held = [runner.space.held[n] for n in numbers]
            if held[0].tensor is None:
                continue
            self.runs += 1
            kept = any(h.spec.label.kind in ("rows", "aggregate") for h in held)
            self.kept += kept
            if kept and any(h.why for h in held):
                self.found.append(["lost", held[0].why, *said])
            if any(h.filled for h in held) and ops.packet(str(func)) not in total._DIVISIONS.keys() | total._OTHERS:
                self.found.append(["filled", "", *said])
        if len(told) > 1:
            self.found.append(["told", sorted(told), str(func), kwargs, [str(d)[6:] for d in dtypes], sorted(private)])


def _line(out, line):
    os.write(out, (json.dumps(line) + "\n").encode())


def in_children(names, work):
    """Lines of JSON that ``work(name, write)`` writes, run in a child, and after one that died in another: (lines, deaths)."""
    lines, deaths, left = [], {}, list(names)
    while left:
        seen, out = os.pipe()
        pid = os.fork()
        if pid == 0:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)  # where a library complains
            os.dup2(nowhere, 2)
            faulthandler.disable()  # pytest's, which has a copy of the real stderr
            try:
                for name in left:
                    os.write(out, (json.dumps({"begun": name}) + "\n").encode())
                    work(name, functools.partial(_line, out))
                os._exit(0)
            finally:
                os._exit(1)
        os.close(out)
        with os.fdopen(seen) as told:
            found = [json.loads(line) for line in told.read().splitlines()]
        _, status = os.waitpid(pid, 0)
        lines += [line for line in found if "begun" not in line]
        last = [line["begun"] for line in found if "begun" in line][-1]
        if status:
            deaths[last] = status
        left = left[left.index(last) + 1 :] if status else []
    return lines, deaths


def main():
    from syft_lab.kernel.executor import compiled

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if "--values" in sys.argv:
        print(json.dumps(fail_on_values(candidates())), flush=True)
        return
    if "--unguarded" in sys.argv:
        total._GUARDS = {}
    if "--apart" in sys.argv:
        wanted = {a for a in sys.argv[1:] if not a.startswith("-")}
        found, ran = mixed({n: c for n, c in candidates().items() if not wanted or ops.packet(n) in wanted})
        for line in found:
            print(json.dumps(line))
        print(json.dumps({"ran": sorted({*ran})}), flush=True)
        return
    if "--identity" in sys.argv:
        compiled.total.made = lambda op, call, arguments, private: call
    wanted = [a for a in sys.argv[1:] if not a.startswith("-")]
    tried = {f"{func} {number}": (func, number) for func, numbers in overloads() for number in numbers
             if not wanted or ops.packet(str(func)) in wanted}  # fmt: skip

    def work(name, write):
        sweep = Sweep()
        sweep.overload(*tried[name])
        write({"op": name, "found": sweep.found[:5], "runs": sweep.runs, "kept": sweep.kept})

    lines, deaths = in_children(tried, work)
    for line in lines:
        if line["found"]:
            print(json.dumps(line))
    for name, status in deaths.items():
        print(json.dumps({"op": name, "found": [["died", status]]}))
    told = {
        "overloads": len({t.split()[0] for t in tried}),
        "runs": sum(x["runs"] for x in lines),
        "kept": sum(x["kept"] for x in lines),
    }
    print(json.dumps(told), flush=True)


# Which operations of the table fail on values


def odd(t):
    """Values in place of these that an operation may fail on."""
    if t.dtype.is_floating_point or t.is_complex():
        pool = (math.nan, math.inf, -1.0, 0.0, 1e30)
    elif t.dtype is torch.bool:
        pool = ()
    else:
        ends = torch.iinfo(t.dtype)
        pool = (100, -1 if ends.min else 1, 0, ends.min, ends.max)
    for value in pool:
        yield torch.full_like(t, value)


def more_calls():
    """Calls that torch's samples don't make, of operations that look at values."""
    a, b, n = torch.eye(3), torch.rand(3, 2), torch.tensor([3, 2, 1])
    m = torch.tensor([[5, 7], [9, 4]])
    yield from [
        (aten.linalg_inv_ex.default, [a], {"check_errors": True}), (aten.linalg_cholesky_ex.default, [a], {"check_errors": True}), (aten.linalg_lu_factor_ex.default, [a], {"check_errors": True}),
        (aten.linalg_ldl_factor_ex.default, [a], {"check_errors": True}), (aten._linalg_solve_ex.default, [a, b], {"check_errors": True}), (aten.linalg_solve_ex.default, [a, b], {"check_errors": True}),
        (aten._linalg_svd.default, [a], {}), (aten.cholesky_inverse.default, [a], {}), (aten.cholesky_solve.default, [b, a], {}), (aten.poisson.default, [b], {"seed": 1}),
        (aten.searchsorted.Tensor, [torch.arange(3.0), b], {"sorter": torch.tensor([0, 1, 2])}), (aten.floor_divide.default, [n, n], {}), (aten.remainder.Tensor, [n, n], {}), (aten.fmod.Tensor, [n, n], {}),
        (aten.div.Tensor_mode, [n, n], {"rounding_mode": "trunc"}), (aten.div.Tensor_mode, [n, n], {"rounding_mode": "floor"}), (aten.div.Scalar_mode, [n, -1], {"rounding_mode": "trunc"}), (aten.remainder.Scalar_Tensor, [7, n], {}), (aten.floor_divide.Scalar, [n, -1], {}),
        (aten.gcd.default, [n, n], {}), (aten.lcm.default, [n, n], {}), (aten.pow.Tensor_Tensor, [n, n], {}), (aten.pow.Scalar, [2, n], {}), (aten.bitwise_left_shift.Tensor, [n, n], {}), (aten.embedding_dense_backward.default, [b, torch.tensor([0, 1, 2]), 4, -1, False], {}),
        (aten.binary_cross_entropy_backward.default, [b, b, b], {}), (aten.bernoulli.Tensor, [b, b], {}) if hasattr(aten.bernoulli, "Tensor") else (aten.bernoulli.default, [b], {}), (aten.normal.float_Tensor, [0.0, b], {}), (aten.renorm.default, [b, 2.0, 0, 1.0], {}),
        (aten._unsafe_index.Tensor, [b, [torch.tensor([0, 2])]], {}), (aten.index_select.default, [b, 0, torch.tensor([0, 2])], {}), (aten.cummaxmin_backward.default, [torch.rand(3), torch.rand(3), torch.tensor([0, 2, 1]), 0], {}), (aten.bucketize.Tensor, [b, torch.arange(3.0)], {}),
        (aten.linalg_matrix_exp.default, [m.float()], {}), (aten.linalg_householder_product.default, [a, torch.rand(3)], {}), (aten.linalg_ldl_factor_ex.default, [a], {}), (aten.isin.Tensor_Tensor, [n, n], {}), (aten.take.default, [b, torch.tensor([0, 5])], {}),
    ]  # fmt: skip


def some_places():
    """Calls with places that leave others of a vector as they are, where a neighbour's mistake shows."""
    of, places, values = torch.arange(6.0), torch.tensor([3, 4]), torch.rand(2)
    yield from ((func, [of, *more], {}) for func, more in (
        (aten.index_fill.int_Scalar, [0, places, 1.0]), (aten.index_fill.int_Tensor, [0, places, torch.tensor(1.0)]), (aten.index_copy.default, [0, places, values]),
        (aten.index_add.default, [0, places, values]), (aten.index_reduce.default, [0, places, values, "amax"]), (aten.index_put.default, [[places], values]),
        (aten._unsafe_index_put.default, [[places], values]), (aten.scatter.src, [0, places, values]), (aten.scatter.value, [0, places, 1.0]), (aten.scatter_add.default, [0, places, values]),
        (aten.scatter_reduce.two, [0, places, values, "sum"]), (aten.put.default, [places, values]), (aten.take.default, [places]), (aten.gather.default, [0, places]),
        (aten.index_select.default, [0, places]), (aten.index.Tensor, [[places]]), (aten._unsafe_index.Tensor, [[places]]),
    ))  # fmt: skip


def candidates():
    """Calls to try, by name: those of torch's samples, and of operations that look at values."""
    index, table = torch.tensor([0, 2, 1]), torch.rand(3, 3)
    found = {name: kept for name, kept in unwritten.named_calls().items() if "as_strided" not in name}
    for func, args, kwargs in [
        *more_calls(), (aten.embedding.default, [table, index], {}), (aten.gather.default, [table, 0, index.expand(3, 3)], {}),
        (aten.index.Tensor, [table, [index]], {}), (aten.scatter.src, [table, 0, index.expand(3, 3), table], {}), (aten.scatter_add.default, [table, 0, index.expand(3, 3), table], {}),
        (aten.index_add.default, [table, 0, index, table], {}), (aten.index_put.default, [table, [index], table], {}), (aten.index_fill.int_Scalar, [table, 0, index, 1.0], {}),
        (aten.nll_loss_forward.default, [table, index, None, 1, -100], {}), (aten.binary_cross_entropy.default, [table, table], {}), (aten.multinomial.default, [table, 2], {}),
        *some_places(),
    ]:  # fmt: skip
        found.setdefault(str(func), []).append((func, args, {k: v for k, v in kwargs.items() if k != "seed"}))
    return found


def fail_on_values(calls):
    """Of each operation that works on tame values and fails on others: call, argument, number of the odd value, and torch's words."""

    def work(name, write):
        for i, (func, args, kwargs) in enumerate(calls[name]):
            leaves, form = tree_flatten((args, kwargs))
            try:
                func(*args, **kwargs)
            except Exception:
                continue
            for j, leaf in enumerate(leaves):
                for k, other in enumerate(odd(leaf) if isinstance(leaf, torch.Tensor) and leaf.numel() else ()):
                    some, named = tree_unflatten([*leaves[:j], other, *leaves[j + 1 :]], form)
                    write({"trying": [name, i, j, k]})
                    try:
                        func(*some, **named)
                    except Exception as error:
                        write({"fails": [name, i, j, k], "words": (str(error).splitlines() or [""])[0][:80]})
                        return

    lines, deaths = in_children(calls, work)
    found = {line["fails"][0]: (*line["fails"][1:], line["words"]) for line in lines if "fails" in line}
    for name in deaths:
        _, *at = [line["trying"] for line in lines if "trying" in line and line["trying"][0] == name][-1]
        found[name] = (*at, "it ends the process")
    return found


def each_of(func, args, kwargs, middle=None):
    """An operation run for each of three like records, of which the second has other ``middle`` (place among tensors, values).

    Gives why there is no result, or None, and what is held of each of its results.
    """
    plan, given = unwritten.planned(func, args, kwargs)
    if plan is None or not given:
        return "no plan", []
    tape = LocalTape()
    whole = [torch.stack([t, middle[1] if middle and i == middle[0] else t, t]) for i, t in enumerate(given)]
    sent = [tape.asset(t, labels.rows("d v1", 1)).current.number for t in whole]
    numbers = [tape.new().number for _ in plan.outputs]
    outs = tuple(range(len(given), len(given) + len(numbers)))
    node = Node(EACH, (Body(plan), [0] * len(given), [Ref(i) for i in range(len(given))]), {}, outs)
    try:
        lost = tape.run(Plan(len(given), (node,), outs), sent, numbers)["lost"]
    except LabError as error:
        lost = str(error)
    return lost or None, [] if lost else [tape.runner.space.held[n] for n in numbers]


def mixed(calls):
    """Of each operation that runs for each record: whether the others keep every bit where one has other values."""

    def work(name, write):
        ran, wrong = 0, []
        for func, args, kwargs in [calls[name][0], *calls[name][1:][-1:]]:
            lost, base = each_of(func, args, kwargs)
            if lost:
                continue
            ran += 1
            tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
            for j, t in enumerate(tensors):
                others = list(odd(t))[:2] if t.numel() else []
                if not t.dtype.is_floating_point and not t.is_complex() and t.dtype is not torch.bool and t.dim() and t.numel():
                    first = torch.zeros(t.shape, dtype=torch.bool)
                    first.view(-1)[0] = True
                    others += [torch.where(first, v, t).to(t.dtype) for v in (-1, -2, 1)]
                for other in others:
                    lost, held = each_of(func, args, kwargs, (j, other))
                    for one, two in zip(base, held, strict=False):
                        keep = torch.tensor([0, 2])
                        same = (
                            [h.tensor[keep].contiguous().view(-1).view(torch.uint8) for h in (one, two)]
                            if one.tensor.numel()
                            else [None] * 2
                        )
                        if same[0] is not None and not torch.equal(*same):
                            wrong.append([j, other.flatten()[:4].tolist().__repr__()])
                    if lost:
                        wrong.append([j, lost])
        write({"op": name, "ran": ran, "wrong": wrong[:3]})

    lines, deaths = in_children(calls, work)
    found = [line for line in lines if line["wrong"]] + [{"op": name, "died": status} for name, status in deaths.items()]
    return found, [ops.packet(line["op"]) for line in lines if line["ran"]]


def at(calls, name, i, j, k):
    """The function, its leaves and their form, the place of one leaf, and its values that torch fails on."""
    func, args, kwargs = calls[name][i]
    leaves, form = tree_flatten((args, kwargs))
    return func, leaves, form, j, list(odd(leaves[j]))[k]


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
