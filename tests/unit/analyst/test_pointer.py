"""Pointers as people use them, on a virtual owner: models, plans, NumPy, habits, and mistakes in words."""

import copy
import gc
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

import syft_lab as lab
from syft_lab import errors
from syft_lab.kernel.requests import desk
from tests.models import resnet18


@pytest.fixture(scope="module")
def alice():
    (owner,) = lab.virtual_owners("alice")
    owner.publish(torch.rand(20, 3), "scans", bounds=(0, 1), tags=["oncology"], description="of hearts")
    yield owner
    owner.close()


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(50, 32), nn.Embedding(16, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 50)

    def forward(self, x):
        return self.head(self.body(self.words(x) + self.places.weight[: x.shape[1]]))


@pytest.mark.parametrize("what", ["resnet18", "transformer"])
def test_models_run_forward_and_backward_as_they_do_here(alice, what):
    torch.manual_seed(0)
    if what == "resnet18":
        net, x, y = resnet18(), torch.randn(2, 3, 64, 64), torch.tensor([1, 7])
    else:
        net, x, y = Transformer(), torch.randint(0, 50, (2, 16)), torch.randint(0, 50, (2, 16))
    twin = copy.deepcopy(net)
    lab.send(twin, alice)
    assert list(twin.state_dict()) == list(net.state_dict())
    losses = []
    for model, given, wanted in ((net, x, y), (twin, lab.send(x, alice), lab.send(y, alice))):
        out = model(given)
        loss = F.cross_entropy(out.flatten(0, -2), wanted.flatten())
        loss.backward()
        losses.append(loss)
    assert torch.allclose(losses[0], losses[1].get(), rtol=1e-5)
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad.get(), rtol=1e-3, atol=1e-5), name
    for (name, b), c in zip(net.named_buffers(), twin.buffers(), strict=True):
        assert torch.allclose(b.float(), c.get().float(), atol=1e-5), name
    twin.eval()
    net.eval()
    with torch.no_grad():
        assert torch.allclose(net(x), twin(lab.send(x, alice)).get(), atol=1e-4)
    twin.get()
    assert all(type(p) is nn.Parameter for p in twin.parameters())


def test_a_model_trained_on_private_data_does_not_come_back_by_get(alice):
    net = lab.send(nn.Linear(3, 1), alice)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net(alice["scans"]).square().mean().backward()
    optimizer.step()
    with pytest.raises(errors.PrivateValueError, match="request"):
        net.get()
    assert isinstance(net.weight, lab.PointerTensor)


def test_modules_share_what_they_share(alice):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    lab.send(net, alice)
    assert net[1].weight is net[0].weight
    net.get()
    assert net[1].weight is net[0].weight


def test_a_plan_is_recorded_once_and_is_what_make_fx_gives(alice):
    calls = []

    @lab.plan
    def f(x, w):
        calls.append(1)
        return torch.relu(x @ w).sum(0), x.mean()

    x, w = torch.randn(4, 5), torch.randn(5, 3)
    px, pw = lab.send(x, alice), lab.send(w, alice)
    for i in range(4):
        a, b = f(px + i, pw)
        assert torch.allclose(a.get(), torch.relu((x + i) @ w).sum(0))
        assert torch.allclose(b.get(), (x + i).mean())
    assert len(calls) == 1
    graph = make_fx(lambda x, w: (torch.relu(x @ w).sum(0), x.mean()))(x, w)
    assert lab.Plan.from_graph(graph).digest == f.plan.digest
    f(lab.send(torch.randn(2, 5), alice), pw)
    assert len(calls) == 2  # another shape
    assert "aten.mm.default" in f.plan.text
    assert f.plan._repr_html_().count("<rect") == 6
    assert f.show() == f.plan.digest


def test_eager_recording_and_a_captured_plan_are_the_same(alice, monkeypatch):
    monkeypatch.setattr("syft_lab.analyst.tape.IDLE_SECONDS", 300)
    x = lab.send(torch.randn(3, 3), alice)
    alice.tape.flush()
    y = (x.exp() + 1).sum()
    nodes = list(alice.tape.nodes)
    from syft_lab.plans import Plan

    eager = Plan.of(nodes, [x.child.number], [y.child.number])
    captured = lab.plan(lambda x: (x.exp() + 1).sum())
    captured(x)
    assert eager.digest == captured.plan.digest


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.Adam(p, 0.01)],
    ids=["sgd", "adam"],
)
def test_a_training_step_as_a_plan(alice, make):
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 2))
    twin = lab.send(copy.deepcopy(net), alice)
    x, y = torch.randn(6, 5), torch.randint(0, 2, (6,))

    def step(model, optimizer, x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    ours, theirs = make(net.parameters()), make(twin.parameters())
    planned = lab.plan(lambda x, y: step(twin, theirs, x, y))
    px, py = lab.send(x, alice), lab.send(y, alice)
    counts = isinstance(ours, torch.optim.Adam)  # its steps in Python: that is said, and each is what it should be
    for i in range(6):
        here = step(net, ours, x + i, y)
        with pytest.warns(UserWarning, match="records another plan at each call") if counts and i > 1 else nullcontext():
            there = planned(px + i, py)
        assert torch.equal(here, there.get())
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q.get())
        assert torch.equal(p.grad, q.grad.get())
    for p, q in zip(net.buffers(), twin.buffers(), strict=True):
        assert torch.equal(p, q.get())


def test_a_plan_writes_into_its_arguments(alice):
    p, base = lab.send(torch.zeros(4), alice), lab.send(torch.zeros(3, 2), alice)
    add = lab.plan(lambda x: x.add_(1))
    for i in range(1, 4):
        assert add(p) is p
        assert torch.equal(p.get(), torch.full((4,), float(i)))
    fill = lab.plan(lambda x: x.mul_(0).add_(5).sum())
    for i in range(2):
        assert fill(base[i]).get() == 10
    assert torch.equal(base.get(), torch.tensor([[5.0, 5.0], [5.0, 5.0], [0.0, 0.0]]))

    @lab.plan
    def copied(x, y):
        y.copy_(x * 2)

    a, b = lab.send(torch.ones(2), alice), lab.send(torch.zeros(2), alice)
    copied(a, b)
    copied(b, a)
    assert torch.equal(b.get(), torch.full((2,), 2.0))
    assert torch.equal(a.get(), torch.full((2,), 4.0))
    with pytest.raises(errors.UsageError, match="share memory"):
        copied(base[0], base[1])
    private = alice["scans"][:2, 0]
    copied(private, b)
    assert b.label.kind != "public"


def test_gradients_of_a_plan_feed_an_optimizer_outside_of_it(alice):
    """An LSTM, too, whose layers torch fuses; Adam counts its steps in Python."""
    torch.manual_seed(0)

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.out(self.lstm(x)[0][:, -1])

    def gradients(model, x, y):
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    net, xs, ys = Reader(), torch.randn(5, 4, 6, 3), torch.randint(0, 2, (5, 4))
    twin, px, py = lab.send(copy.deepcopy(net), alice), lab.send(xs, alice), lab.send(ys, alice)
    ours, theirs = torch.optim.Adam(net.parameters(), 0.01), torch.optim.Adam(twin.parameters(), 0.01)
    calls = []
    planned = lab.plan(lambda x, y: (calls.append(1), gradients(twin, x, y))[1])
    for i in range(5):
        here, there = gradients(net, xs[i], ys[i]), planned(px[i], py[i])
        ours.step()
        theirs.step()
        assert torch.allclose(there.get(), here.detach(), atol=1e-5)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(q.get(), p, atol=1e-5)
    assert len(calls) == 2


def test_a_plan_is_the_same_for_slices_wherever_they_lie(alice):
    base, calls = torch.randn(10, 6), []
    remote = lab.send(base, alice)

    def work(x):
        calls.append(1)
        y = x.clone()
        y[1:3] += 1
        return (
            y.as_strided((2,), (2,), 1) * 2,
            x.as_strided((3,), (1,)),
            x[1:] + x.t().t()[:-1],
            torch.as_strided(x, (2, 2), (1, 2)),
        )

    planned = lab.plan(work)
    for i in range(5):
        for got, want in zip(planned(remote[i]), work(base[i]), strict=True):
            assert torch.equal(got.get(), want)
        for got, want in zip(work(remote[i]), work(base[i]), strict=True):
            assert torch.equal(got.get(), want)
    assert len(calls) == 16  # once for all five plans


def test_views_of_views_that_a_plan_gives_back_are_written_to_and_read(alice):
    base = torch.arange(24.0).reshape(4, 6)
    remote = lab.send(base.clone(), alice)
    planned = lab.plan(lambda x: (x[1:4], x.reshape(2, 3).t()))
    for i in range(3):
        a, b = planned(remote[i])
        c, d = base[i][1:4], base[i].reshape(2, 3).t()
        assert torch.equal(a[1:].get(), c[1:])
        assert torch.equal(b[1].get(), d[1])
        assert torch.equal(b.as_strided((2,), (1,), b.storage_offset()).get(), d.as_strided((2,), (1,), d.storage_offset()))
        a += 10.0  # a value of its own, as what comes out of a plan is
        assert torch.equal(a.get(), c + 10)
        assert torch.equal(remote.get(), base)


def test_a_plan_draws_new_random_numbers_at_each_call_and_the_same_under_the_same_seed(alice):
    net = lab.send(nn.Sequential(nn.Linear(20, 50), nn.Dropout()), alice)

    @lab.plan
    def f(x):
        return net(x) + torch.rand_like(x).sum()

    x = lab.send(torch.ones(3, 20), alice)
    torch.manual_seed(4)
    drawn = [f(x).get() for _ in range(3)]
    torch.manual_seed(4)
    again = [f(x).get() for _ in range(3)]
    assert not torch.equal(drawn[1], drawn[2])
    for a, b in zip(drawn, again, strict=True):
        assert torch.equal(a, b)


def test_a_function_that_fails_leaves_everything_as_it_was(alice):
    x = lab.send(torch.ones(3), alice)

    @lab.plan
    def broken(y):
        x.add_(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        broken(x * 2)
    assert torch.equal(x.get(), torch.ones(3))
    assert torch.equal((x + 1).get(), torch.full((3,), 2.0))


def test_what_a_plan_writes_into_is_written(alice):
    total, base = lab.send(torch.zeros(3), alice), lab.send(torch.arange(6.0), alice)
    view = base[1:4]

    @lab.plan
    def add(y):
        total.add_(y)
        view.mul_(2)
        return y * 2

    one = lab.send(torch.ones(3), alice)
    for _ in range(3):
        add(one)
    assert torch.equal(total.get(), torch.full((3,), 3.0))
    assert torch.equal(base.get(), torch.tensor([0.0, 8.0, 16.0, 24.0, 4.0, 5.0]))
    assert torch.equal(view.get(), torch.tensor([8.0, 16.0, 24.0]))


def test_functions_of_numpy_work_on_pointers(alice):
    a = np.arange(12.0).reshape(3, 4)
    x = lab.send(torch.from_numpy(a), alice)
    for function in (
        np.sum,
        np.mean,
        np.exp,
        np.sqrt,
        np.max,
        np.min,
        np.prod,
        np.abs,
        np.transpose,
        np.cos,
        np.std,
        np.var,
        np.square,
    ):
        assert np.allclose(function(x).get().numpy(), function(a)), function
    assert np.allclose(np.sum(x, axis=1, keepdims=True).get().numpy(), a.sum(1, keepdims=True))
    assert np.allclose(np.add(x, 2).get().numpy(), a + 2)
    assert np.allclose((a + x).get().numpy(), a + a)
    assert np.allclose(np.concatenate([x, x]).get().numpy(), np.concatenate([a, a]))
    assert np.allclose(np.maximum(x, a[::-1].copy()).get().numpy(), np.maximum(a, a[::-1]))
    assert np.allclose(np.where(x > 3, x, 0).get().numpy(), np.where(a > 3, a, 0))
    with pytest.raises(errors.RefusedOpError, match="torch"):
        np.interp(x, x, x)
    with pytest.raises(errors.PrivateValueError):
        np.asarray(x)


def test_the_chain_of_a_pointer(alice):
    x = lab.send(torch.arange(6.0).reshape(2, 3), alice)
    row = x[0]
    assert x.location is alice
    assert x.child.owner == "alice"
    assert x.parent is None
    assert torch.equal(row.parent.get(), x.get())
    assert row.label.kind == "public"
    assert x.label.sources == ()
    assert {x.state, alice["scans"].state} == {"at the owner"}


def test_send_and_get_are_methods_of_tensors_and_modules_where_the_names_are_free(alice):
    assert alice.tape is not None
    x = torch.ones(2, requires_grad=True).send(alice)
    assert x.requires_grad
    assert x.is_leaf
    (x * 3).sum().backward()
    assert torch.equal(x.grad.get(), torch.full((2,), 3.0))
    assert x.get().requires_grad


@pytest.mark.parametrize(
    ("what", "error", "way"),
    [
        (lambda a: lab.send([1, 2], a), errors.UsageError, "from_numpy"),
        (lambda a: lab.send(torch.ones(2), "alice"), errors.UsageError, "connected"),
        (lambda a: lab.send(torch.eye(3).to_sparse(), a), errors.UsageError, "to_dense"),
        (lambda a: lab.send(torch.empty(3, device="meta"), a), errors.UsageError, "no values"),
        (lambda a: lab.send(lab.send(torch.ones(2), a), a), errors.UsageError, "already"),
        (lambda a: lab.send(torch.ones(2), a).release(epsilon=1.0), errors.UsageError, "get"),
        (lambda a: a["scans"].request(reason=" "), errors.UsageError, "why"),
        (lambda a: a["scans"].release(epsilon=1.0), errors.PrivateValueError, "clamp"),
        (lambda a: a["scans"].clamp(0, 1).mean().release(epsilon=-1), errors.UsageError, "epsilon"),
        (lambda a: torch.save(lab.send(torch.ones(2), a), "x.pt"), errors.UsageError, "pickled"),
        (lambda a: lab.plan(lambda x: x)(torch.ones(2)), errors.UsageError, "pointer"),


    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(alice, what, error, way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=way):
        what(alice)


def test_two_owners_do_not_mix(alice):
    (bob,) = lab.virtual_owners("bob")
    try:
        with pytest.raises(errors.OtherOwnerError, match=r"alice.*bob|bob.*alice"):
            lab.send(torch.ones(2), alice) + lab.send(torch.ones(2), bob)
        net = lab.send(nn.Linear(2, 2), bob)
        with pytest.raises(errors.OtherOwnerError):
            net(lab.send(torch.ones(1, 2), alice))
    finally:
        bob.close()


def test_deep_copies_are_values_of_their_own(alice):
    net = lab.send(nn.Linear(2, 2), alice)
    other = copy.deepcopy(net)
    assert isinstance(other.weight, nn.Parameter)
    with torch.no_grad():
        other.weight.zero_()
    assert other.weight.get().abs().sum() == 0
    assert net.weight.get().abs().sum() > 0


def test_pointers_let_go_are_freed_at_the_owner(alice):
    runner = alice.host._tensors.seats()[0][1]._host._runner
    gc.collect()
    alice.tape.flush()
    x = lab.send(torch.ones(1000), alice)
    x.get()
    before = len(runner.space.held)
    kept = [x + i for i in range(20)]
    kept[-1].get()
    assert len(runner.space.held) == before + 20
    del kept
    gc.collect()
    (x + 1).get()
    gc.collect()
    alice.tape.flush()
    x.get()
    assert len(runner.space.held) <= before + 1


def test_a_data_owner_of_this_process_answers_tables_too(alice):
    import pandas as pd

    alice.publish(pd.DataFrame({"x": np.arange(50.0) % 7}), "tab", bounds={"x": (0, 7)})
    assert alice.search("hearts") == ["scans"]
    assert abs(alice["tab"]["x"].mean().release(epsilon=50).value - (np.arange(50) % 7).mean()) < 1
    assert alice["tab"].to_tensor(["x"]).shape == (50, 1)
    assert alice.host.audit.verify()


def test_the_code_in_the_howto_runs_as_it_stands(capsys):
    page = (Path(__file__).parents[3] / "docs" / "howto" / "tensors.md").read_text()
    found: dict[str, object] = {}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", page, re.S)), "tensors.md", "exec"), found)
    found["hospital"].close()
    assert "aten._softmax" in capsys.readouterr().out


@pytest.mark.parametrize("first", ["import torch", "%load_ext syft_lab"])
def test_load_ext_gives_torch_its_methods_whichever_comes_first(first, tmp_path):
    lines = [first, "%load_ext syft_lab", "import torch", "print(torch.Tensor.send.__module__, torch.nn.Module.get.__module__)"]
    code = f"from IPython.core.interactiveshell import InteractiveShell as S\ns = S.instance()\nfor l in {lines!r}: s.run_cell(l).raise_error()"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": ""},
    )
    assert "syft_lab.analyst.pointer syft_lab.analyst.pointer" in ran.stdout, ran.stderr


def test_a_plan_and_a_pointer_are_drawn_for_pages_and_as_text(alice):
    x = alice["scans"]
    html = x.clamp(0, 1).mean(0)._repr_html_()
    assert "aggregate(L1" in html
    assert "release" in html
    plan = lab.plan(lambda v: (v * 2).split(1, 1)[0].sum())
    plan(x)
    picture = plan.plan._repr_html_()
    assert picture.startswith("<svg")
    assert "aria-label" in picture
    assert "aten.split.Tensor" in picture
    drawn = plan.plan.figure()
    assert [a.text for a in drawn.layout.annotations] == ["input %0", "mul", "split", "sum"]
    assert list(drawn.data[1].hovertext) == ["input %0", *plan.plan.text.splitlines()[1:-1]]
    assert len(drawn.data[0].x) == 3 * 3  # each operation reads one value
    with lab.plan() as long:
        for _ in range(200):
            x = x + 1
    assert "<svg" not in long.plan._repr_html_()
    drawn = long.plan.figure()
    assert not drawn.layout.annotations
    assert len(drawn.data[1].hovertext) == 201


def test_a_block_is_noted_as_a_plan(alice, capsys):
    x = lab.send(torch.ones(3), alice)
    with lab.plan() as p:
        y = (x * 2).exp() + 1
    assert torch.allclose(y.get(), torch.ones(3).mul(2).exp() + 1)
    assert [n.op for n in p.plan.nodes] == ["aten.mul.Tensor", "aten.exp.default", "aten.add.Tensor"]
    p.show()
    assert "aten.exp" in capsys.readouterr().out
    assert lab.plan()(lambda v: v + 1)(x).get().tolist() == [2.0, 2.0, 2.0]


LAYERS = {
    "Conv1d": (lambda: nn.Conv1d(3, 4, 3), (2, 3, 8)), "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 2, 2), (2, 3, 5)), "MaxPool1d": (lambda: nn.MaxPool1d(2), (2, 3, 8)),
    "MaxPool3d": (lambda: nn.MaxPool3d(2), (1, 2, 4, 4, 4)), "AvgPool3d": (lambda: nn.AvgPool3d(2), (1, 2, 4, 4, 4)),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(2), (2, 3, 8)), "BatchNorm1d": (lambda: nn.BatchNorm1d(3), (4, 3)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True), (2, 3, 4)),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(2), (2, 4, 3, 3)), "GLU": (nn.GLU, (3, 4)), "Mish": (nn.Mish, (3, 4)),
    "Hardshrink": (nn.Hardshrink, (3, 4)), "Softshrink": (nn.Softshrink, (3, 4)), "LogSigmoid": (nn.LogSigmoid, (3, 4)),
    "trilinear": (lambda: nn.Upsample(scale_factor=2, mode="trilinear"), (1, 2, 2, 2, 2)),
    "linear": (lambda: nn.Upsample(scale_factor=2, mode="linear"), (1, 2, 3)),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), (1, 4, 2, 2)), "Unfold": (lambda: nn.Unfold(2), (1, 2, 3, 3)),
    "Fold": (lambda: nn.Fold((3, 3), 2), (1, 8, 4)), "CircularPad2d": (lambda: nn.CircularPad2d(1), (1, 2, 3, 3)),
    "RNN": (lambda: nn.RNN(4, 5, nonlinearity="relu"), (3, 2, 4)), "GRU": (lambda: nn.GRU(4, 5, num_layers=2), (3, 2, 4)),
    "LSTM": (lambda: nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True), (3, 2, 4)),
    "LSTM without bias": (lambda: nn.LSTM(4, 6, bias=False), (3, 2, 4)), "LSTM of one": (lambda: nn.LSTM(4, 6), (3, 4)),
    "LSTM projected": (lambda: nn.LSTM(4, 6, proj_size=3), (3, 2, 4)),
    "weight norm": (lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (2, 4)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_torch_work_unmodified_forward_and_backward(alice, name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape, requires_grad=True)
    twin, px = lab.send(copy.deepcopy(layer), alice), lab.send(x.detach(), alice).requires_grad_(True)
    here, there = layer(x), twin(px)
    here, there = (t[0] if isinstance(t, tuple) else t for t in (here, there))
    assert torch.allclose(there.detach().get(), here.detach(), atol=1e-5)
    here.square().sum().backward()
    there.square().sum().backward()
    assert torch.allclose(px.grad.get(), x.grad, atol=1e-4)
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(q.grad.get(), p.grad, atol=1e-4)
    with torch.no_grad():
        again = twin.eval()(px)
        again = again[0] if isinstance(again, tuple) else again
        want = layer.eval()(x)
        assert torch.allclose(again.get(), want[0] if isinstance(want, tuple) else want, atol=1e-5)


def test_a_private_series_in_an_lstm_stays_private(alice):
    hidden, _ = lab.send(nn.LSTM(3, 2), alice)(alice["scans"])
    assert hidden.label.kind != "public"
    with pytest.raises(errors.PrivateValueError):
        hidden.get()


@pytest.mark.parametrize(
    "name", ["Adagrad", "RMSprop", "Adadelta", "NAdam", "RAdam", "Adamax", "Rprop", "ASGD", "AdamW", "amsgrad"]
)
def test_optimizers_of_torch_work_unmodified(alice, name):
    torch.manual_seed(0)
    net, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.randn(8, 2)
    twin, px, py = lab.send(copy.deepcopy(net), alice), lab.send(x, alice), lab.send(y, alice)
    for model, a, b in ((net, x, y), (twin, px, py)):
        kind = torch.optim.Adam if name == "amsgrad" else getattr(torch.optim, name)
        optimizer = kind(model.parameters(), **({"amsgrad": True} if name == "amsgrad" else {}))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        for _ in range(6):
            optimizer.zero_grad()
            F.mse_loss(model(a), b).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(q.get(), p, atol=1e-6)


def test_out_is_written_and_stays_at_the_owner(alice):
    x, y = torch.randn(4), torch.randn(4)
    px, py = lab.send(x, alice), lab.send(y, alice)
    out = torch.empty_like(px)
    assert torch.maximum(px, py, out=out) is out
    assert torch.equal(out.get(), torch.maximum(x, y))
    torch.add(px, py, alpha=2, out=out)
    assert torch.equal(out.get(), x + 2 * y)
    with pytest.raises(errors.UsageError, match="local tensor"):
        torch.add(px, py, out=torch.empty(4))
    with pytest.raises(RuntimeError, match="doesn't match"):
        torch.add(px, py, out=lab.send(torch.empty(3), alice))
    private = alice["scans"][:, 0]
    torch.mul(private, 2.0, out=(total := lab.send(torch.empty(20), alice)))
    assert total.label.kind != "public"


def test_numpys_functions_take_numbers_where_torchs_take_tensors(alice):
    x = torch.randn(5)
    p = lab.send(x, alice)
    assert torch.equal(np.maximum(p, 0.0).get(), x.clamp(min=0))
    assert torch.equal(np.minimum(1, p).get(), x.clamp(max=1))
    assert np.maximum(p, 0).dtype is torch.float32


def test_an_operation_whose_shape_torch_can_not_tell_is_refused(alice):
    x = lab.send(torch.randn(5, 4), alice).requires_grad_(True)
    with pytest.raises(errors.RefusedOpError):
        nn.MultiMarginLoss()(x, lab.send(torch.randint(0, 4, (5,)), alice)).backward()


def test_numbers_that_were_expanded_travel(alice):
    one, many = torch.tensor(3.0).expand(1), torch.tensor(3.0).expand(4)
    assert torch.equal(lab.send(one, alice).get(), one)
    assert torch.equal(lab.send(many, alice).get(), many)
    assert torch.equal((lab.send(torch.ones(1), alice) + one).get(), one + 1)
    with pytest.raises(errors.RefusedOpError, match="complex32"):
        lab.send(torch.ones(2), alice).to(torch.complex32)


def test_data_is_set_to_another_value_of_the_same_shape(alice):
    x, y = lab.send(torch.arange(4.0), alice), lab.send(torch.arange(4.0) + 50, alice)
    x.data = y
    assert x.get().tolist() == [50, 51, 52, 53]
    model = lab.send(torch.nn.Linear(3, 1, bias=False), alice)
    model.weight.data = lab.send(torch.ones(1, 3), alice)
    assert model(lab.send(torch.tensor([1.0, 2, 3]), alice)).get().item() == 6
    with pytest.raises(errors.UsageError, match="takes a tensor as x is"):
        x.data = torch.zeros(3)


def test_memory_written_as_another_dtype_is_refused(alice):
    x = lab.send(torch.ones(3), alice)
    assert x.view(torch.int32).get().tolist() == [1065353216] * 3
    with pytest.raises(errors.RefusedOpError, match="clone the view"):
        x.view(torch.int32).add_(1)
    bits = x.view(torch.int32)
    x.add_(1)
    with pytest.raises(errors.RefusedOpError, match="clone the view"):
        bits + 1


def kept(owner):
    """The values that an owner's shelf holds, by request."""
    folder = owner.host._desk._shelf._folder
    return {path.parent.name for path in folder.glob("*/*") if path.suffix != ".json"}


@pytest.fixture
def asking(monkeypatch):
    monkeypatch.setattr(desk, "MAX_OPEN", 2)
    (owner,) = lab.virtual_owners("carol")
    owner.publish(torch.rand(20, 3), "scans", bounds=(0, 1))
    yield owner
    owner.close()


def test_no_value_is_kept_of_a_request_that_was_not_taken_in_or_ended_without_a_release(asking, monkeypatch):
    x = asking["scans"]
    for i in range(2):
        (x * i).request(reason="r")
    assert len(kept(asking)) == 2
    with monkeypatch.context() as patched:
        patched.setattr(asking.host._desk._shelf, "give", lambda *_: pytest.fail("it was written before it was refused"))
        with pytest.raises(errors.BusyError, match="are open"):
            (x * 2).request(reason="r")
    folder = asking.host._desk._shelf._folder
    assert len(list(folder.iterdir())) == 2
    first, second = list(asking.host.requests)
    first.deny("no")
    asking.host._desk._move(second._row, "expired", {"why": "late"})
    assert kept(asking) == set()
    with pytest.raises(errors.UsageError, match="no code can be run again"):
        first.drop_people()


def test_what_a_kill_left_on_the_shelf_is_deleted_at_the_next_start(asking):
    asking["scans"].request(reason="r")
    desk_, (request,) = asking.host._desk, list(asking.host.requests)
    shelf, denied = desk_._shelf, desk_.row(request.id)
    shelf.give("0" * 32, b"never filed")
    desk_.deny(denied.request, "no")
    shelf.give(denied.request, b"the kill came before it was deleted")
    (shelf._folder / denied.request / ".value.bin.1.2.partial").write_bytes(b"half")
    desk_.tidy()
    assert kept(asking) == set()
    assert not (shelf._folder / ("0" * 32)).exists()


def test_no_note_of_a_run_on_the_mock_comes_back_after_its_request_was_cancelled(asking):
    asked = asking["scans"].request(reason="r")
    desk_ = asking.host._desk
    row = desk_.row(next(iter(asking.host.requests)).id)
    asked.cancel()
    desk_.note(row, "mock", {"log": "long"})
    assert not (desk_._shelf._folder / row.request).exists()
