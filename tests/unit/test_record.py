"""What torch does with recorded tensors is what it does with real ones, to the last bit."""

import copy
import gc

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call, grad, jacrev, vmap
from torch.utils.checkpoint import checkpoint

from syft_lab import ops, record
from syft_lab.errors import OtherOwnerError, PrivateValueError, RefusedOpError, UsageError
from tests.tensors import LocalTape, same

torch.manual_seed(0)


@pytest.fixture(autouse=True, params=[False, True], ids=["once", "again"])
def _run(request, monkeypatch):
    """What is recorded gives the same as a plan that comes once and as one that comes again."""
    monkeypatch.setattr(LocalTape, "keep", request.param)


X, Y, Z = torch.randn(6, 5), torch.randn(6, 5), torch.randn(5, 4)
I = torch.randint(0, 5, (6,))
B = torch.randn(3, 4, 4)
P = B @ B.mT + 4 * torch.eye(4)
IMG = torch.randn(2, 3, 8, 8)


def inplace(x):
    row = x[0]
    row.add_(1)
    x[:, 0] = 5
    x.t()[1].mul_(2)
    x.view(-1)[3] = 7
    return x, row


FUNCTIONS = {
    "arithmetic": lambda x, y: (x + y, x - 2, 3 / x, x * y, -x, abs(x), x**2, 2**x, x // 2, x % 2, 1 - x),
    "comparison": lambda x, y: (x > y, x == 0, (x < 1) & (y < 1), ~(x > 0), x.eq(y), torch.maximum(x, y), x.isnan()),
    "indexing": lambda x, y: (x[0], x[:, 1], x[1:4, ::2], x[None], x[..., -1], x[[0, 2]], x[I], x[:, None, :]),
    "local mask": lambda x, y: x[X > 0],
    "broadcasting": lambda x, y: (x + y[0], x * y[:, :1], x.expand(2, 6, 5), x.unsqueeze(1) - y.unsqueeze(0)),
    "views": lambda x, y: (x.view(5, 6), x.t(), x.reshape(-1), x.permute(1, 0), x.flatten(), x.unflatten(1, (5, 1)), x.movedim(0, 1), x.chunk(2), x.split(2), x.unbind()),
    "joining": lambda x, y: (torch.cat([x, y]), torch.stack([x, y], 1), torch.hstack([x, y]), x.repeat(2, 1), torch.tile(x, (1, 2)), x.roll(1, 0), x.flip(0)),
    "reductions": lambda x, y: (x.sum(), x.mean(0), x.prod(1), x.std(), x.var(0), x.max(), x.min(1), x.argmax(1), x.norm(), x.logsumexp(1), x.cumsum(0), x.median(), x.amax(0), x.any(), x.all(), (x > 0).sum()),
    "sorting": lambda x, y: (x.sort(1), x.topk(2), x.argsort(), x.kthvalue(2)),
    "where": lambda x, y: (torch.where(x > 0, x, y), torch.where(x > 0, x, 0.0), x.masked_fill(x > 0, 9), x.clamp(-1, 1), x.clip(min=0), torch.nan_to_num(x / 0)),
    "linear algebra": lambda x, y: (x @ Z, x.mm(Z), torch.einsum("ij,kj->ik", x, y), x.T @ y, torch.outer(x[0], y[0]), x[0].dot(y[0]), torch.linalg.norm(x), torch.kron(x[:2], y[:2])),
    "functional": lambda x, y: (F.relu(x), F.gelu(x), F.softmax(x, 1), F.log_softmax(x, 0), F.silu(x), F.softplus(x), F.elu(x), F.normalize(x), F.one_hot(I, 5).float() @ x[:5], F.pad(x, (1, 1)), F.cosine_similarity(x, y)),
    "losses": lambda x, y: (F.mse_loss(x, y), F.cross_entropy(x, I), F.l1_loss(x, y), F.smooth_l1_loss(x, y), F.huber_loss(x, y), F.binary_cross_entropy_with_logits(x, y.sigmoid()), F.nll_loss(x.log_softmax(1), I), F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean")),
    "in place": lambda x, y: inplace(x * 1),
    "masked assignment": lambda x, y: (x.clone().masked_fill_(x > 0, 0), assign(x.clone(), y)),
    "dtypes": lambda x, y: (x.double(), x.half().float(), x.to(torch.int64), x.bfloat16(), x > 0, x.type_as(y), x.long().bool()),
    "gather": lambda x, y: (x.gather(1, I[:, None]), torch.zeros_like(x).scatter(1, I[:, None], 1.0), x.index_select(0, I), torch.take_along_dim(x, I[:, None], 1), torch.zeros_like(x).index_add(0, I, y)),
    "complex": lambda x, y: (torch.fft.fft(x), torch.fft.rfft(x).abs(), torch.complex(x, y).conj().imag, torch.view_as_real(torch.complex(x, y))),
    "shape in place": lambda x, y: (x[0] @ Z, x @ y[0], x.clone().unsqueeze_(0), x.clone().t_().add_(1), x[:1].clone().squeeze_() * 2),
    "in place chain": lambda x, y: chain(x * 1),
}  # fmt: skip


def assign(x, y):
    x[x > 0] = 0
    x[y > 0] = 1.5
    x[1] = y[2]
    x[:, [0, 2]] = 4.0
    return x


def chain(x):
    whole, part = x, x[1:3, ::2]
    part *= 2
    flat = whole.view(-1)
    whole.add_(1)
    flat[::7] -= 3
    other = whole.detach()
    other.mul_(2)
    return whole, part, flat, other


def flat(found):
    return [t for f in found for t in flat(f)] if isinstance(found, tuple | list) else [found]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_torch_give_what_they_give_on_real_tensors(name):
    function, tape = FUNCTIONS[name], LocalTape()
    expected = flat(function(X.clone(), Y.clone()))
    found = flat(function(tape.send(X), tape.send(Y)))
    assert len(found) == len(expected)
    for a, b in zip(expected, found, strict=True):
        if isinstance(b, record.Recorded):
            assert a.shape == b.shape
            assert same(a.resolve_conj(), tape.get(b).resolve_conj()), name
        else:
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "name", ["inv", "solve", "cholesky", "qr", "svdvals", "eigvalsh", "det", "slogdet", "matrix_norm", "pinv", "matrix_power"]
)
def test_linalg(name):
    more = {"solve": (torch.ones(3, 4, 1),), "matrix_power": (3,)}.get(name, ())
    tape = LocalTape()
    function = getattr(torch.linalg, name)
    for a, b in zip(flat(tuple(flat(function(P, *more)))), flat(tuple(flat(function(tape.send(P), *more)))), strict=True):
        assert torch.allclose(a, tape.get(b), atol=1e-4), name


def test_layers_of_torch_forward_and_backward():
    layers = [nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.LayerNorm(8), nn.MaxPool2d(2), nn.AvgPool2d(2),
              nn.AdaptiveAvgPool2d(2), nn.ConvTranspose2d(3, 2, 2), nn.Upsample(scale_factor=2), nn.PReLU(), nn.InstanceNorm2d(3),
              nn.Upsample(scale_factor=2, mode="bilinear"), nn.ZeroPad2d(1), nn.Dropout(0.0), nn.Flatten(), nn.Hardswish(), nn.RMSNorm(8)]  # fmt: skip
    for layer in layers:
        tape, remote = LocalTape(), copy.deepcopy(layer)
        for part in remote.modules():
            for key, p in list(part._parameters.items()):
                if p is not None:
                    part._parameters[key] = nn.Parameter(tape.send(p.detach()))
            for key, b in list(part._buffers.items()):
                if b is not None:
                    part._buffers[key] = tape.send(b)
        x, px = IMG.clone().requires_grad_(), tape.send(IMG.clone().requires_grad_())
        a, b = layer(x), remote(px)
        a.square().sum().backward()
        b.square().sum().backward()
        assert torch.allclose(a, tape.get(b.detach()), atol=1e-6), layer
        assert torch.allclose(x.grad, tape.get(px.grad), atol=1e-5), layer
        for (name, p), q in zip(layer.named_parameters(), remote.parameters(), strict=True):
            assert torch.allclose(p.grad, tape.get(q.grad), atol=1e-4), (layer, name)
        for p, q in zip(layer.buffers(), remote.buffers(), strict=True):
            assert torch.allclose(p.float(), tape.get(q).float(), atol=1e-6), layer


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.Adam(p, 0.01),
        lambda p: torch.optim.AdamW(p, 0.01),
        lambda p: torch.optim.RMSprop(p, 0.01),
        lambda p: torch.optim.Adagrad(p, 0.01),
    ],
    ids=["sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad"],
)
def test_training_is_bit_identical(make):
    tape, y = LocalTape(), torch.randint(0, 3, (6,))
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    twin = copy.deepcopy(net)
    for part in twin.modules():
        for key, p in list(part._parameters.items()):
            part._parameters[key] = nn.Parameter(tape.send(p.detach()))
    for model, x, target in ((net, X, y), (twin, tape.send(X), tape.send(y))):
        optimizer = make(model.parameters())
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        for _ in range(8):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), target)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=False)
            optimizer.step()
            schedule.step()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert same(p.detach(), tape.get(q.detach()))


@pytest.mark.filterwarnings("ignore:.*jit.script:DeprecationWarning")
def test_functional_transforms():
    tape = LocalTape()
    w, x = torch.randn(5), X
    pw, px = tape.send(w), tape.send(X)

    def loss(w, x):
        return ((x * w).sum() - 1).square()

    assert torch.allclose(grad(loss)(w, x[0]), tape.get(grad(loss)(pw, px[0])))
    per_sample = vmap(grad(loss), in_dims=(None, 0))
    assert torch.allclose(per_sample(w, x), tape.get(per_sample(pw, px)), atol=1e-5)
    assert torch.allclose(jacrev(grad(loss))(w, x[0]), tape.get(jacrev(grad(loss))(pw, px[0])), atol=1e-5)
    net = nn.Linear(5, 2)
    params = {k: tape.send(v.detach()) for k, v in net.named_parameters()}
    assert torch.allclose(net(X), tape.get(functional_call(net, params, (px,))))


def test_double_backward_hooks_and_checkpoints():
    tape = LocalTape()
    seen = []

    def run(x):
        x.register_hook(lambda g: seen.append(type(g)) or g * 2)
        y = checkpoint(lambda v: (v.sin() * v).cumsum(0), x, use_reentrant=False)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        g.sum().backward()
        return x.grad

    a = run(X.clone().requires_grad_())
    b = run(tape.send(X.clone().requires_grad_()))
    assert torch.allclose(a, tape.get(b), atol=1e-4)
    assert record.Recorded in seen


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("masked", [None, "causal", "padding"])
def test_what_torch_fuses_for_inference_is_written_out(norm_first, masked):
    tape = LocalTape()
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first).eval()
    x = torch.randn(2, 5, 8)
    given = {
        None: {},
        "causal": {"src_mask": torch.ones(5, 5).triu(1).bool()},
        "padding": {"src_key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2])},
    }[masked]
    with torch.no_grad():
        a, b = layer(x, **given), layer(tape.send(x), **given)
        assert torch.allclose(a, tape.get(b), atol=1e-5)
        attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
        px = tape.send(x)
        (c, d), (e, f) = attention(x, x, x), attention(px, px, px)
        assert torch.allclose(c, tape.get(e), atol=1e-5)
        assert torch.allclose(d, tape.get(f), atol=1e-5)


def test_no_grad_and_detach():
    tape = LocalTape()
    x = tape.send(X.clone().requires_grad_())
    with torch.no_grad():
        y = x * 2
    assert not y.requires_grad
    assert (x * 2).requires_grad
    assert not (x * 2).detach().requires_grad


def test_randomness_is_recorded_and_follows_torchs_seed():
    tape = LocalTape()
    x = tape.send(torch.ones(50))
    torch.manual_seed(3)
    a = F.dropout(x, 0.5)
    torch.manual_seed(3)
    b = F.dropout(x, 0.5)
    c = F.dropout(x, 0.5)
    assert torch.equal(tape.get(a), tape.get(b))
    assert not torch.equal(tape.get(b), tape.get(c))
    assert set(tape.get(torch.randn_like(x).sign().abs()).tolist()) == {1.0}
    before = torch.get_rng_state()
    tape.get(torch.rand_like(x))
    assert torch.equal(torch.get_rng_state()[:8], before[:8])


def test_uninitialised_memory_of_the_owner_never_shows():
    tape = LocalTape()
    x = tape.send(torch.ones(100))
    for made in (torch.empty_like(x), x.new_empty(7), x.new_empty_strided((3,), (1,))):
        assert tape.get(made).abs().sum() == 0


def test_what_nobody_holds_is_neither_sent_nor_kept():
    tape = LocalTape()
    x = tape.send(X)
    kept = x + 1
    for i in range(300):
        x * i
    gc.collect()
    tape.flush()
    assert [n.op for n in tape.last.nodes] == ["aten.add.Tensor"]
    assert len(tape.runner.space.held) == 2
    del kept, x
    tape.flush()
    assert len(tape.runner.space.held) == 0


def test_a_local_tensor_that_meets_a_pointer_travels_once():
    tape = LocalTape()
    x, w = tape.send(X), torch.randn(5, 2)
    a = x @ w
    b = x @ w
    w.add_(1)
    c = x @ w
    assert not same(tape.get(a), tape.get(c))
    assert same(tape.get(a), tape.get(b))
    assert len(tape._constants) == 1
    with pytest.warns(UserWarning, match="send it once"):
        x[0, 0] + torch.zeros(3_000_000)


def test_values_of_two_owners_do_not_meet():
    one, other = LocalTape(), LocalTape()
    with pytest.raises(OtherOwnerError, match=r"move|federation"):
        one.send(X) + other.send(X)


@pytest.mark.parametrize(
    ("what", "error", "way"),
    [
        (lambda x: x[x > 0], PrivateValueError, "where"),
        (lambda x: x.nonzero(), PrivateValueError, "where"),
        (lambda x: torch.masked_select(x, x > 0), PrivateValueError, "where"),
        (lambda x: x.unique(), PrivateValueError, "declare"),
        (lambda x: torch.equal(x, x), PrivateValueError, r"\(a == b\)"),
        (lambda x: torch.bincount(x.long().flatten()), PrivateValueError, "one-hot"),
        (lambda x: torch.ones(6, 5).add_(x), UsageError, "send"),
        (lambda x: torch.histc(x), RefusedOpError, "comparisons"),
        (lambda x: torch.allclose(x, x), RefusedOpError, "isclose"),
        (lambda x: torch.distributions.Normal(x, x), RefusedOpError, "validate_args=False"),
        (lambda x: torch.ops.aten.set_.source_Tensor(x, x), RefusedOpError, "set"),
        (lambda x: x.to_sparse(), RefusedOpError, "sparse"),
        (lambda x: x + torch.eye(6, 5).to_sparse(), UsageError, "to_dense"),
    ],
)
def test_what_would_tell_values_is_refused_in_words(what, error, way):
    x = LocalTape().send(X)
    with pytest.raises(error, match=way) as caught:
        what(x)
    assert not isinstance(caught.value, TypeError)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, where forward mode begins
def test_forward_mode_is_refused_in_words():
    x = LocalTape().send(X[0])
    with pytest.raises(RefusedOpError, match="forward-mode"):
        torch.func.jvp(torch.sin, (x,), (x,))
    with pytest.raises(RefusedOpError, match="jacrev"):
        torch.func.hessian(lambda t: (t**3).sum())(x)


def test_every_operation_of_the_table_is_one_that_torch_has_as_a_function():
    for name in ops.ALLOWED:
        packet = getattr(torch.ops.aten, name)
        assert any(not getattr(packet, o)._schema.is_mutable for o in packet.overloads()), name


def test_errors_of_shape_are_torchs_own_and_come_at_once():
    x = LocalTape().send(X)
    with pytest.raises(RuntimeError, match="dim"):
        x @ x
    with pytest.raises(RuntimeError, match="broadcast"):
        x[0].add_(x)
    with pytest.raises(IndexError):
        x[9]


def test_what_was_computed_already_is_not_computed_again():
    tape = LocalTape()
    x = tape.send(X)
    y = x.exp().sum(1)
    a, z = tape.held(y), x.exp().sum(1)
    b = tape.held(z)
    assert a.tensor is b.tensor
    assert tape.held(torch.rand_like(x)).tensor is not tape.held(torch.rand_like(x)).tensor


def test_constants_go_with_the_local_tensors_that_they_were():
    tape = LocalTape()
    x = tape.send(X)
    for _ in range(50):
        tape.held((x + torch.randn(6, 5)).sum())
    tape.flush()
    assert len(tape._constants) == 0
    assert len(tape.runner.space.held) <= 2
