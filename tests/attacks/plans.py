"""Plans whose labels are right, to look for false alarms; and rules that are wrong, to look for what stops them."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch.func import functional_call

from syft_lab import labels, plans, record
from syft_lab.kernel.executor import compiled
from syft_lab.labels import rows
from syft_lab.plans import Plan
from tests.models import lenet, mlp, resnet18
from tests.tensors import LocalTape

D = 8
ROWS, THREE, UNBOUNDED = rows("d v1", 1, (0.0, 1.0)), rows("d v1", 3, (0.0, 1.0)), rows("d v1", 1)
N = 16  # records of the plans with wrong rules
aten = torch.ops.aten


def prepared(function, data, public=()):
    """The plan of a function of pointers, made ready; ``data`` are tensors with their labels."""
    tape = LocalTape()
    pointers = [tape.asset(tensor, label) for tensor, label in data]
    made = function(*pointers, *[tape.send(p) for p in public])
    wanted = [t.current.number for t in (made if isinstance(made, list | tuple) else [made])]
    live = plans.alive(tape.nodes, wanted)
    pending = {out for node in tape.nodes for out in node.outs}
    tape.nodes = []
    inputs = sorted({n for node in live for n in plans.refs(node)} - pending)
    plan = plans.parse(Plan.of(live, inputs, wanted).canonical)
    return compiled.compiled(plan, [tape.runner.space.held[n].spec for n in inputs], torch.device("cpu"))


def claims(ready):
    """What the labels of a plan's outputs rest on: operations by their claims."""
    return {kind.claim: kind.op for kinds, _ in ready.behind.values() for kind in kinds}


def label(ready):
    """The label of a plan's first output."""
    return next(spec.label for spec, _ in ready.made.values())


# Right ones


def mean(y):
    return y.clamp(0, 1).mean(0)


def called(net, x, parameters, buffers=None):
    names = dict(zip([name for name, _ in net.named_parameters()], parameters, strict=True))
    return functional_call(net, {**names, **(buffers or {})}, (x,))


def recurrent(x, a, b):
    state = torch.zeros(len(x), 6)
    for t in range(D):
        state = (x[:, t : t + 1] @ a + state @ b).tanh()
    return state


def attention(x, q, k, v):
    n, x = len(x), x.reshape(len(x), 2, 4)
    scores = torch.bmm(torch.bmm(x, q.expand(n, 4, 4)), torch.bmm(x, k.expand(n, 4, 4)).transpose(1, 2))
    return torch.bmm(scores.softmax(2), torch.bmm(x, v.expand(n, 4, 4))).reshape(n, -1)


def right(n):
    """Name to function, private data, and public arguments: what is to be an aggregate."""
    torch.manual_seed(0)
    table, images, whole = torch.rand(n, D), torch.rand(n, 1, 12, 12), torch.randint(0, 5, (n,))
    x, pictures, classes = [(table, ROWS)], [(images, ROWS)], [(whole, UNBOUNDED)]
    w, one_hot = torch.randn(D, 5), torch.eye(5)[torch.randint(0, 5, (n,))]
    conv, second = torch.randn(6, 1, 3, 3), torch.randn(8, 6, 3, 3)
    net, small, deep = lenet().eval(), mlp().eval(), resnet18().eval()
    weights, little, large = ([p.detach() for p in m.parameters()] for m in (net, small, deep))
    buffers = dict(deep.named_buffers())
    digits, colours = [(torch.rand(n, 1, 28, 28), ROWS)], [(torch.rand(n, 3, 16, 16), ROWS)]
    return {
        "clamped mean": (mean, x, []),
        "three records a person": (mean, [(table, THREE)], []),
        "sum of all": (lambda x: x.clamp(0, 1).sum(), x, []),
        "two axes, scaled": (lambda x: (x.reshape(n, 2, 4).clamp(-1, 2).sum((0, 2)) * -3 + 2) / 7, x, []),
        "axis kept": (lambda x: x.tanh().mean(0, keepdim=True), x, []),
        "moments": (lambda x: mean(torch.stack([x, x * x], -1)), x, []),
        "one-hot of ranges": (lambda x: mean(torch.stack([(x >= a) & (x < a + 0.1) for a in (0.0, 0.1, 0.5)], -1).double()), x, []),
        "edges": (lambda x, e: (x.unsqueeze(-1) >= e).float().clamp(0, 1).sum(0), x, [torch.linspace(0, 1, 9)]),
        "booleans counted": (lambda x: (x > 0.3).sum(0), x, []),
        "classes counted": (lambda c, k: (c.unsqueeze(-1) == k).sum(0), classes, [torch.arange(5)]),
        "linear": (lambda x, w: mean(x @ w), x, [w]),
        "linear with bias": (lambda x, w, b: mean(F.linear(x, w, b)), x, [w.t().contiguous(), torch.randn(5)]),
        "matrix and vector": (lambda x, v: mean(x @ v), x, [torch.randn(D)]),
        "double product": (lambda x, w: mean(x.double() @ w), x, [w.double()]),
        "bfloat16 product": (lambda x, w: mean(x.bfloat16() @ w), x, [w.bfloat16()]),
        "half product": (lambda x, w: mean(x.half() @ w), x, [w.half()]),
        "squared error": (lambda x, w: mean((x @ w - x[:, :5]).square().mean(1)), x, [w]),
        "huber": (lambda x, w: mean(torch.where((x @ w).abs() < 1, (x @ w) ** 2 / 2, (x @ w).abs() - 0.5).sum(1)), x, [w]),
        "cross-entropy": (lambda x, w, y: mean(-(F.log_softmax(x @ w, 1) * y).sum(1)), x, [w, one_hot]),
        "largest": (lambda x, w: mean(((x @ w) >= (x @ w).amax(1, keepdim=True)).float()), x, [w]),
        "logistic gradient": (lambda x, w: ((x @ w).sigmoid().unsqueeze(1) * x.unsqueeze(2)).clamp(-1, 1).mean(0), x, [w]),
        "clipped by norm": (lambda x: (x / x.square().sum(1, keepdim=True).sqrt()).clamp(-1, 1).sum(0), x, []),
        "norm of each": (lambda x: mean(torch.linalg.vector_norm(x, dim=1)), x, []),
        "softmax": (lambda x: mean(x.softmax(1)), x, []),
        "log of sums": (lambda x: mean(x.logsumexp(1)), x, []),
        "layer norm": (lambda x, g, b: mean(F.layer_norm(x, (D,), g, b)), x, [torch.rand(D), torch.rand(D)]),
        "root mean square": (lambda x: mean(x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)), x, []),
        "wild functions": (lambda x: mean(((x * 1e5).sin() + (x * 90).exp().log() + x.tanh().atanh() + x.lgamma()).nan_to_num()), x, []),
        "one column": (lambda x: (x[:, 0].contiguous() * 1e6).sin().exp().clamp(0, 1).mean(), x, []),
        "turned": (lambda x: (x.t().exp() * 2).clamp(0, 1).mean(1), x, []),
        "records in lanes": (lambda x: x.t().square().sum(0).clamp(0, 1).mean(), x, []),
        "moved axes": (lambda x: x.reshape(n, 2, 4).permute(2, 0, 1).cos().clamp(0, 1).sum(1), x, []),
        "columns of columns": (lambda x: mean(x[:, 1:][:, 2:5]), x, []),
        "cropped": (lambda x: mean(x[:, :, 2:-2, 3:].flatten(1)[:, 4:]), pictures, []),
        "column of a part, turned": (lambda x: x.split(4, 1)[1].reshape(n, 2, 2)[:, 1, 1:].unsqueeze(2).permute(1, 0, 2).clamp(0, 1).sum(1), x, []),
        "part of a part of a sum": (lambda x: x.reshape(n, 2, 4).clamp(0, 1).sum(0)[1][1:].unsqueeze(0).t(), x, []),
        "columns side by side": (lambda x: mean(torch.cat([x[:, :3], x[:, 5:] * 2], 1)), x, []),
        "expanded": (lambda x: x.unsqueeze(1).expand(n, 3, D).clamp(0, 1).sum((0, 1)), x, []),
        "attention": (lambda x, *a: mean(attention(x, *a)), x, [torch.randn(4, 4) for _ in range(3)]),
        "embedding": (lambda c, t: mean(F.embedding(c.clamp(0, 9), t)), classes, [torch.randn(10, 4)]),
        "embedding, also out of range": (lambda c, t: mean(F.embedding(c, t)), classes, [torch.randn(3, 4)]),
        "whole numbers divided": (lambda c: mean(((100 // c) + (c % 3) + torch.div(c, -1, rounding_mode="trunc")).double()), classes, []),
        "convolution": (lambda x, w: mean(F.conv1d(x.unsqueeze(1), w).amax(2)), x, [torch.randn(3, 1, 3)]),
        "strided, grouped": (lambda x, a, b: mean(F.conv2d(F.conv2d(x, a, stride=2), b, groups=2, dilation=2).mean((2, 3))), pictures, [conv, torch.randn(8, 3, 2, 2)]),
        "transposed convolution": (lambda x, a: mean(F.conv_transpose2d(x, a, stride=2).mean((2, 3))), pictures, [torch.randn(1, 4, 3, 3)]),
        "convolutions and pools": (lambda x, a, b: mean(F.max_pool2d(F.relu(F.conv2d(F.max_pool2d(F.relu(F.conv2d(x, a)), 2), b)), 2).flatten(1)), pictures, [conv, second]),
        "averages of planes": (lambda x: mean(F.adaptive_avg_pool2d(F.avg_pool2d(x, 2), 1).reshape(n)), pictures, []),
        "channels last": (lambda x, a: mean(F.conv2d(x.to(memory_format=torch.channels_last), a).amax((2, 3))), pictures, [conv]),
        "LeNet": (lambda x, *p: mean(called(net, x, p).softmax(1)), digits, weights),
        "LeNet's loss": (lambda x, y, *p: mean(-(called(net, x, p).log_softmax(1) * y).sum(1)), digits, [torch.eye(10)[torch.randint(0, 10, (n,))], *weights]),
        "MLP": (lambda x, *p: mean(called(small, x, p)), [(torch.rand(n, 20), ROWS)], little),
        "recurrent": (lambda x, a, b: mean(recurrent(x, a, b)), x, [torch.randn(1, 6), torch.randn(6, 6)]),
        "dropped by a mask": (lambda x, m: mean(x * m), x, [(torch.rand(D) > 0.5).float()]),
        "noise of the plan": (lambda x: mean(x + torch.rand_like(x)), x, []),
        "ResNet-18": (lambda x, *p: mean(called(deep, x, p[: len(large)], dict(zip(buffers, p[len(large) :], strict=True))).softmax(1)), colours, [*large, *buffers.values()]),
    }  # fmt: skip


# Wrong ones


@contextlib.contextmanager
def planted(rules, judged=True):
    """Other rules for some operations. Unless it is ``judged``, nobody looks whether records keep their number."""
    old, judge = dict(labels._RULES), labels._judged
    forget()
    labels._RULES.update(rules)
    if not judged:
        labels._judged = lambda rule, step: rule(step)
    try:
        yield
    finally:
        labels._RULES.clear()
        labels._RULES.update(old)
        labels._judged = judge
        forget()


def forget():
    """What was known of operations by other rules."""
    record._CACHE.clear()
    compiled._KINDS.clear()


def keeps(step):
    """Rows stay rows, whatever an operation does to them."""
    return replace(next(t for t in step.given if t.label.kind == "rows").label, bounds=(0.0, 1.0))


def keeps_first(step):
    return replace(keeps(step), axis=0)


def keeps_images(step):
    return keeps(step) if len(step.out.shape) == 4 else None


def public(_):
    return labels.PUBLIC


def any_term(step):
    """`baddbmm` as it was: its first term may lie along other axes."""
    held = [t.label for t in step.given if t.label.kind != "public"]
    if any(h.kind != "rows" or h.axis != 0 for h in held) or len({(h.k, h.sources) for h in held}) != 1:
        return None
    return replace(held[0], bounds=None)


def any_weight(step):
    """`convolution` as it was: a weight that looks like the input is taken for it."""
    x = step.first
    alone = all(t is x or t.label.kind == "public" for t in step.given)
    return replace(x.label, bounds=None) if x.label.kind == "rows" and x.label.axis == 0 and alone else None


def nothing_is_all(step):
    """`squeeze` as it was: no axis that is named is every axis."""
    x = step.first
    gone = [d for d in (step["dim"] or range(len(x.shape))) if x.shape[d] == 1]
    return replace(x.label, axis=x.label.axis - sum(d < x.label.axis for d in gone))


def half(step):
    found = labels._sum(step)
    return replace(found, l1=found.l1 / 2, l2=found.l2 / 2) if found is not None and found.kind == "aggregate" else found


def scalar_is_public(step):
    return labels.PUBLIC if step.out.shape == () else labels._sum(step)


def the_first_label(step):
    return step.first.label


def ones_by_records(x):
    """Convolves each record with all records, as weights that look the same."""
    u, v = (t.clamp(0, 1).reshape(N, 4, 1) * 1.0 for t in (x * 0 + 1, x))
    return (F.conv1d(u, v)[:, 3] / 4).clamp(0, 1).mean(0)


def swapped():
    places = torch.arange(N)
    places[3], places[5] = 5, 3
    return places


WRONG = {
    "baddbmm's first term": ({"baddbmm": any_term}, lambda x, a, b: mean(torch.baddbmm(x, a, b)[:, 3]), [torch.zeros(N, N, 1), torch.zeros(N, 1, 4)]),
    "a weight that looks the same": ({"convolution": any_weight}, ones_by_records, []),
    "squeeze of nothing": ({"squeeze": nothing_is_all}, lambda x: torch.squeeze(x[:, 0].clamp(0, 1)[None, None].expand(1, N, N), ()).select(2, 3).mean(1), []),
    "slices keep rows": ({"slice": keeps}, lambda x: (x[1:] + x[:-1]).clamp(0, 1).sum(0), [], False),
    "cumulated": ({"cumsum": keeps}, lambda x: mean(x.cumsum(0)), []),
    "batch norm in training": (dict.fromkeys(("_native_batch_norm_legit_functional", "_native_batch_norm_legit"), keeps_images), lambda x, m, v: mean(aten._native_batch_norm_legit_functional(x.reshape(N, 2, 2, 1), None, None, m, v, True, 0.1, 1e-5)[0]), [torch.zeros(2), torch.ones(2)]),
    "softmax over records": ({"_softmax": keeps}, lambda x: mean(x.softmax(0)), []),
    "rolled": ({"roll": keeps}, lambda x: mean(x.roll(1, 0)), []),
    "flipped": ({"flip": keeps}, lambda x: mean(x.flip(0)), []),
    "private places": ({"index_select": keeps}, lambda x: mean(x.index_select(0, (x[:, 0] * N).long().clamp(0, N - 1))), []),
    "the same private place": ({"index_select": keeps}, lambda x: mean(x.index_select(0, (x[:, 0] * 0).long())), []),
    "sorted": ({"sort": keeps}, lambda x: mean(x.sort(0)[0]), []),
    "largest so far": ({"cummax": keeps}, lambda x: mean(x.cummax(0)[0]), []),
    "a product over records": ({"mm": keeps_first}, lambda x, w: mean(w @ x), [torch.randn(N, N)]),
    "a product with zeros": ({"mm": keeps_first}, lambda x, w: mean(w @ x), [torch.zeros(N, N)]),
    "shares of a sum": ({"div": keeps, "sum": scalar_is_public}, lambda x: mean(x / x.sum()), []),
    "a public maximum": ({"amax": public}, lambda x: mean(x / x.amax()), []),
    "behind a mask": ({"roll": keeps}, lambda x: mean(torch.where(x == 0.731, x.roll(1, 0), x)), []),
    "times zero": ({"roll": keeps}, lambda x: mean((x + x.roll(1, 0) * 0.0).clamp(0, 1)), []),
    "a public median": ({"sub": keeps, "median": lambda step: labels.PUBLIC if step.out.shape == (4,) else None}, lambda x: mean(x - x.median(0)[0]), []),
    "halves change places": ({"cat": keeps, "slice": keeps}, lambda x: mean(torch.cat([x[8:], x[:8]], 0)), [], False),
    "permute keeps the axis": ({"permute": the_first_label}, lambda x: mean(x.unsqueeze(1).expand(N, N, 4).permute(1, 0, 2)), [], False),
    "t keeps the axis": ({"t": the_first_label}, lambda x, w: mean((x @ w).t()), [torch.randn(4, N)], False),
    "a mean's L1 halved": ({"mean": half}, mean, []),
    "group norm over records": ({"native_group_norm": keeps_images}, lambda x: F.group_norm(x.unsqueeze(0).unsqueeze(3), 1).clamp(0, 1).mean(1), []),
    "two records change places": ({"index_select": keeps}, lambda x, i: mean(x.index_select(0, i)), [swapped()]),
    "ranks among records": (dict.fromkeys(("searchsorted", "bucketize"), keeps), lambda x: torch.searchsorted(x[:, 0].contiguous(), x[:, 0].contiguous()).clamp(0, 1).sum(0), []),
    "private zeros are public": ({"mul": public}, lambda x: x * 0, []),
    "a sum expanded": ({"expand": the_first_label}, lambda x: x.clamp(0, 1).sum(0).expand(5, 4), []),
    "a sum doubled beside itself": ({"stack": lambda step: replace(step.first.label)}, lambda x: torch.stack([x.clamp(0, 1).sum(0)] * 2), []),
}  # fmt: skip
