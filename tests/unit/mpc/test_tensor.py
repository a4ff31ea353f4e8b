"""torch's operations and unmodified modules on shares, against torch."""

import copy
import inspect
from pathlib import Path

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from syft_lab import errors
from syft_lab.mpc import sharing
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.share import TABLE, Share
from syft_lab.mpc.tensor import run as run_shares
from tests.models import ready
from tests.parties import FRACTION, K, on_shares, opened, run

X, Y = torch.linspace(-3, 3, 24).view(4, 6), torch.linspace(2, -2, 24).view(4, 6) + 0.1
OPS = {
    "arithmetic": lambda x, y: (x * y - x / 4 + 2 - 3 * y) * 0.5,
    "the tour's": lambda x, y: (x * y).sum() / 100,
    "views": lambda x, y: torch.cat([x.t()[1:, ::2], y.reshape(6, 4)[:5, :2]]).unsqueeze(0).expand(2, 10, 2).permute(2, 0, 1),
    "products": lambda x, y: x @ y.t() + torch.einsum("ij,ij->i", x, y) + F.linear(x, y)[:, 0],
    "public weights": lambda x, y: x @ torch.arange(12.0).view(6, 2) + F.linear(y, torch.eye(6))[:, :2],
    "reductions": lambda x, y: x.mean(1) + y.sum(1) + x.amax(1) + y.max(1)[0] + x.max() - y.mean() + x.cumsum(1)[:, 3],
    "comparisons": lambda x, y: torch.where(x < y, x, y) + torch.where(x >= 0.5, x, torch.zeros(())) + (x > y).float() + (x <= 0),
    "elementwise": lambda x, y: x.relu() + y.abs() + x.clamp(-1, 1) + torch.maximum(x, y) + torch.minimum(x, y) + y.sigmoid() + x**2 + (x - 1).exp(),
    "division": lambda x, y: x / (y.abs() + 0.5) + (y**2 + 1).rsqrt() + (x**2 + 0.5).reciprocal(),
    "softmax": lambda x, y: (x * 3).softmax(1) + y.softmax(0),
    "in place": lambda x, y: (x + y).relu_().add_(1).mul_(2),
    "indices": lambda x, y: x[torch.tensor([2, 0]), 1] + y[[1, 3]][:, 2] + x[-1, :2],
    "relu6": lambda x, y: F.relu6(x * 4) + F.hardtanh(y),
    "sums of other types": lambda x, y: x.sum(1, dtype=torch.float64) + (x > y).sum(1) + (x > 0).cumsum(1)[:, -1] + x.cumsum(1, dtype=torch.float64)[:, 2],
    "parts": lambda x, y: torch.stack([*x.unbind(1), *y.chunk(2, 1)[1].unbind(1), *x.split([2, 4], 1)[0].unbind(1)]).roll(1, 0),
    "triangles": lambda x, y: x[:, :4].tril() + y[:, :4].triu(1) + x[:, :4].diag() + y[:, :4].trace() + x[:, 1:].diagonal(),
    "edges": lambda x, y: F.pad(x, (1, 2)) + F.pad(y, (2, 1), value=1.5) + x.gather(1, torch.tensor([[1, 0, 3]] * 4)).repeat(1, 3),
    "smallest": lambda x, y: x.min(1)[0] + y.min() + x.amin(1) + torch.minimum(x, y).min(0, keepdim=True)[0].sum(),
    "where smallest": lambda x, y: y.argmin(1) + x.min(1)[1] + y.argmin(),
    "signals": lambda x, y: F.conv1d(x.view(2, 2, 6), y[:, :4].reshape(2, 2, 4)[:, :, :3], stride=2, padding=1).flatten(1)
    + F.normalize(y[:2]) + F.conv1d(x.view(2, 2, 6), y[:2, None, :2], groups=2, dilation=2).flatten(1)[:, :6],
    "spread": lambda x, y: x.var(1) + y.std(1) + x.std() + y.var(1, correction=0) + x.norm(dim=1) + y.norm(p=1, dim=1),
    "roots": lambda x, y: x.abs().sqrt() + (y.abs() * 1000).sqrt() + (x - x).sqrt(),
    "logic": lambda x, y: ((x > 0) & (y > 0)).float() + ((x > 1) | (y > 1)) * 2 + ((x > 0) ^ (y > 0)) * 4 + ~(x > y) * 8 + ((x > 0) & (X > 1)) * 3,
    "equal": lambda x, y: (x == x.clone()).float() + (x != y) * 2 + (y == 2.1) * 4 + x.sign(),
    "any and all": lambda x, y: (x > 2).any(1).float() + (y > -9).all(0).sum() + (x > 9).any() * 2 + (x < 2).all(1) * 4
    + (x > 0).count_nonzero(1) + y.count_nonzero(),
    "filled": lambda x, y: x.masked_fill(x > 0, 0.5) + y.masked_fill(Y > 0, -1.0) + F.leaky_relu(x) + F.mse_loss(x, y)
    + F.mse_loss(x, Y, reduction="sum"),
    "which": lambda x, y: x.argmax(1) + (x + y > 0).sum(1),
    "pools": lambda x, y: F.avg_pool2d(x.view(1, 1, 4, 6), 2) + F.adaptive_avg_pool2d(y.view(1, 1, 4, 6), (2, 3))
    + F.max_pool2d(x.view(1, 1, 4, 6), 3, 2, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_operations_give_what_torch_gives(name):
    found, _ = on_shares(OPS[name], X, Y)
    expected = OPS[name](X, Y)
    assert found.shape == expected.shape
    assert found.is_floating_point() == expected.is_floating_point()
    assert (found - expected.to(found.dtype)).abs().max() <= 2e-4


@pytest.mark.parametrize("many", [8191, 8192, 300_000])
def test_means_variances_and_norms_of_many_numbers_hold(many):
    """Sums over 2^26, as of a million ages, were more than the product with 1/n holds, and wrong in silence."""
    x = torch.linspace(-4000, 4000, many) + 50

    def work(x):
        small = x / 100
        return torch.stack(
            [
                x.mean(),
                (x.abs() * 0 + 4000).mean(),
                small.var(),
                small.std(),
                small.norm() / 100,
                (x.abs() * 0 + 4000).sum() / many,
            ]
        )

    found, _ = on_shares(work, x)
    expected = work(x.double())
    assert ((found[:2] - expected[:2]).abs() <= 2 * 2.0**-FRACTION + 8e-6 * expected[:2].abs()).all()
    assert ((found - expected).abs() <= 2e-3 + 2e-5 * expected.abs()).all()  # x itself is rounded here


WHOLE = {
    "largest": lambda n, m, c: n.max() + n.amax(0) + m.min() + m.max(0)[0] + torch.maximum(n, m) - torch.minimum(n, m) + n.clamp(1, 3),
    "sizes": lambda n, m, c: (n - m).abs() + (n - m).relu() * 2 + (m - n).sign() * 9 + torch.add(n, m, alpha=3),
    "with numbers": lambda n, m, c: n * 3 + 1 - (5 - m) + n * torch.arange(4) + torch.arange(4) - m**2 + n * m,
    "fractions": lambda n, m, c: n * 0.5 + 1.5 - m / 2 + n / m.clamp(min=1) + torch.cat([n, torch.ones(4)])[2:6] + n.float().mean(),
    "chosen": lambda n, m, c: torch.where(n > 2, n, m) + torch.where(n < m, n, 7) + n.masked_fill(n == 3, 0) + (n > 2.5),
    "joined": lambda n, m, c: torch.cat([n, m]) + F.pad(n, (2, 2), value=7) + torch.stack([n, m]).flatten() + n.repeat(2),
    "conditions": lambda n, m, c: (c + c).sum(1) + (c + 1).sum(1) + (c * c).sum(1) + c.max(1)[0] + n.bool() + c.long()[:, 0] * 5,
    "places": lambda n, m, c: c.float().argmax(1) * 2 + n.argmax() - m.argmin(),
    "products": lambda n, m, c: c.long() @ c.long().t() + torch.dot(n, m),
    "many": lambda n, m, c: (c.repeat(9000, 1).any() + c.repeat(9000, 1).all() * 2 + (c.repeat(9000, 1).sum() > 12_000) * 4
                             + (c.repeat(9000, 1).sum() < c.repeat(9000, 1).logical_not().sum()) * 8),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_stay_whole_where_torchs_do(name):
    """Their shares have no fraction bits: taken for numbers that do, they would be off by a factor of 2^18, in silence."""

    def work(x, y):
        return WHOLE[name]((x > 0).sum(1), (y > 0).sum(1), x > 0)

    found, _ = on_shares(work, X, Y)
    expected = work(X, Y)
    assert found.is_floating_point() == expected.is_floating_point()
    assert (found - expected.to(found.dtype)).abs().max() <= 2e-4


def infer(net, x):
    """A module with all of its numbers shared, on a shared input."""
    state = {**dict(net.named_parameters()), **{n: b for n, b in net.named_buffers() if b.is_floating_point()}}

    def work(party, image, *shares):
        fixed = Fixed(party, FRACTION, K)
        weights = {n: Share(s, fixed) for n, s in zip(state, shares, strict=True)}
        return run_shares(copy.deepcopy(net), Share(image, fixed), parameters=weights).shared  # one each: this is one process

    answers, parties = run(work, sharing.encode(x), *map(sharing.encode, state.values()))
    with torch.no_grad():
        return sharing.decode(opened(answers)), net(x), parties


@pytest.mark.parametrize("what", ["mlp", "lenet", "resnet18"])
def test_unmodified_modules_run_on_shares(what):
    net, x = ready(what)
    found, expected, _ = infer(net, x)
    assert (found - expected).abs().max() <= 2e-3 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize(("work", "said"), [
    (lambda x, y: x.log(), "aten.log.default"), (lambda x, y: x.item(), "open"), (lambda x, y: x[x > 0], "where"),
    (lambda x, y: 1 if (x > 0).all() else 0, "torch.where"), (lambda x, y: x & y, "conditions"),
    (lambda x, y: x.any(), "conditions"), (lambda x, y: x.norm(p=3), "order 1 and 2"), (lambda x, y: x[:1].var(0), "correction"), (lambda x, y: x.gather(1, y.argmax(1, keepdim=True)), "private"), (lambda x, y: bool(x[0, 0] > 0), "torch.where"),
    (lambda x, y: x.sort(), "max and argmax"), (lambda x, y: x**0.5, "2, 3 and 4"), (lambda x, y: x.t().add_(1), "view"),
    (lambda x, y: nn.BatchNorm1d(6).train()(x), r"model.eval\(\)"), (lambda x, y: x.int(), "rounding"),
    (lambda x, y: F.conv3d(x.view(1, 1, 1, 4, 6), y.view(1, 1, 1, 4, 6)), "conv2d"), (lambda x, y: x.numpy(), "open them"), (lambda x, y: x.sum().tolist(), "open them")])  # fmt: skip
def test_what_shares_do_not_have_is_refused_by_name(work, said):
    with pytest.raises((errors.RefusedOpError, errors.UsageError, RuntimeError), match=said):
        on_shares(work, X, Y)


@pytest.mark.parametrize("work", [lambda x, y: x @ y, lambda x, y: x + y[:3], lambda x, y: x.view(5, 5)])
def test_shapes_that_do_not_match_are_as_wrong_as_in_torch(work):
    with pytest.raises(RuntimeError):
        work(X, Y)
    with pytest.raises(RuntimeError):
        on_shares(work, X, Y)


def test_the_docs_list_the_operations():
    page = (Path(__file__).parents[3] / "docs" / "mpc.md").read_text()
    listed = page.partition("this list is complete -->")[2].partition("<!-- end -->")[0].split()
    assert listed == sorted({str(func).split(".")[1] for func in TABLE})


def test_sums_of_products_are_truncated_once_and_relu_goes_with_them():
    """Eight rounds in all, and after a max-pooling there is a quarter of the ReLU."""
    x, y = X.view(1, 1, 4, 6), Y.view(1, 1, 4, 6)
    _, parties = on_shares(lambda a, b: (a * b + b * b + a + 1).relu(), x, y)
    assert max(p.online.rounds for p in parties) == 8
    assert parties[0].online.bytes == (64 * 2 + 1 + 85 + 32 + 2) * 24 // 8
    found, parties = on_shares(lambda a, b: F.max_pool2d((a * b).relu(), 2), x, y)
    assert (found - F.max_pool2d((x * y).relu(), 2)).abs().max() <= 1e-5
    _, apart = on_shares(lambda a, b: F.max_pool2d((a * b).relu() + 0, 2), x, y)
    assert parties[0].online.bytes < apart[0].online.bytes


def test_shares_of_two_runs_do_not_mix():
    kept = {}

    def keep(party, x):
        kept[party.index] = Share(x, Fixed(party, FRACTION, K))
        return x

    run(keep, torch.arange(3))
    with pytest.raises(errors.UsageError, match="two federations"):
        run(lambda party, x: Share(x, Fixed(party, FRACTION, K)) + kept[party.index], torch.arange(3))


def test_what_is_printed_tells_no_number():
    found = []
    run(lambda party, x: found.append(repr(Share(x, Fixed(party, FRACTION, K)))), torch.tensor([42 << FRACTION]))
    assert sorted(found)[0] == "Share(party 0, (1,), torch.float32)"


def nudged(t, index):
    """What another processor may make of the same: one unit in the last place more."""
    return torch.nextafter(t, t + 1) if index == 1 else t


@pytest.mark.parametrize("meets", ["factor", "added", "condition", "places", "layer", "listed"])
def test_public_numbers_that_a_party_rounds_otherwise_end_the_run(meets):
    """Shares times different numbers are no shares of anything, and nothing else would find it."""
    work = {
        "factor": lambda x, i: (x * nudged(torch.full((4,), 0.3), i)) @ torch.eye(4),
        "added": lambda x, i: (x + nudged(torch.full((4,), 0.3), i)) * x,
        "condition": lambda x, i: torch.where(nudged(torch.full((4,), 0.3), i) > 0.3, x, -x) * x,
        "places": lambda x, i: x.index_select(1, torch.tensor([0, int(i == 1)])) * 0.3,
        "layer": lambda x, i: F.batch_norm(x, torch.zeros(4), nudged(torch.full((4,), 0.3), i)) * x,
        "listed": lambda x, i: torch.cat([x, nudged(torch.full((3, 4), 0.3), i)]) * 0.3,
    }[meets]
    x = torch.rand(3, 4)
    for same in (True, False):

        def party(me, shared, same=same):
            made = work(Share(shared, Fixed(me, FRACTION, K)), 0 if same else me.index)
            return (made * made).shared  # where parties part, at the next message

        if same:
            answers, _ = run(party, sharing.encode(x))
            assert torch.allclose(sharing.decode(opened(answers)).float(), work(x, 0) ** 2, atol=1e-4)
        else:
            with pytest.raises(errors.PartnerError, match="was asked something else"):
                run(party, sharing.encode(x))


def meant(default):
    """A default as torch means it: one number in place of several, and nothing in place of an empty list."""
    if isinstance(default, tuple | list):
        return meant(default[0]) if len({*default}) == 1 else list(default) or None
    return default


def test_rules_have_the_defaults_of_torch():
    """Torch leaves out an argument that is its default: a rule with another one computes something else (`hardtanh` did)."""
    wrong, seen = [], 0
    for func, work in TABLE.items():
        rule = inspect.signature(work).parameters.values()
        places = [p for p in rule if p.kind is p.POSITIONAL_OR_KEYWORD]
        pairs = [*zip(places, [a for a in func._schema.arguments if not a.kwarg_only], strict=False)]
        named = {a.name: a for a in func._schema.arguments if a.kwarg_only}
        pairs += [(p, named[p.name]) for p in rule if p.name in named]
        for place, argument in pairs:
            if place.default is place.empty or not argument.has_default_value():
                continue
            seen += 1
            if meant(place.default) != meant(argument.default_value):
                wrong.append((str(func), place.name, place.default, argument.default_value))
    assert wrong == []
    assert seen > 40


def test_hardtanh_without_its_ends_clamps():
    x = torch.tensor([-3.0, -0.5, 0.25, 7.0])
    found, _ = on_shares(lambda x: F.hardtanh(x) + F.relu6(x) + F.hardtanh(x, 0, 1), x)
    assert torch.allclose(found.float(), F.hardtanh(x) + F.relu6(x) + F.hardtanh(x, 0, 1), atol=1e-4)
