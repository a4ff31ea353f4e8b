"""What is done to operations on a GPU, tried on the CPU; and that the fork server looks for none."""

import subprocess
import sys

import pytest
import torch

from syft_lab.kernel.executor import compiled, gpu
from syft_lab.labels import Label
from tests.tensors import LocalTape

aten = torch.ops.aten
HERE = torch.device("cpu")


def plain(op, *args):
    name, _, overload = op.partition(".")
    return getattr(getattr(aten, name), overload or "default")(*args)


def fitted(op, *args):
    name, _, overload = op.partition(".")
    func = getattr(getattr(aten, name), overload or "default")
    return gpu.fitted(f"aten.{name}.{overload or 'default'}", func, lambda a, k, seed: [func(*a, **k)], HERE)(
        list(args), {}, None
    )[0]


X, WHOLE = torch.arange(12.0).reshape(3, 4), torch.tensor
CALLS = [
    ("index_select", lambda i: (X, 1, WHOLE([0, i])), 3, (4, -1)),
    ("gather", lambda i: (X, -1, WHOLE([[i]])), 3, (4, -1)),
    ("scatter_add", lambda i: (X, 0, WHOLE([[i]]), torch.ones(1, 1)), 2, (3, -1)),
    ("index_add", lambda i: (X, 0, WHOLE([i]), torch.ones(1, 4)), 2, (3, -1)),
    ("index.Tensor", lambda i: (X, [None, WHOLE([i])]), -4, (4, -5)),
    ("index_put", lambda i: (X, [WHOLE([True, False, True]), WHOLE([i])], WHOLE(1.0)), 3, (4, -5)),
    ("embedding", lambda i: (X, WHOLE([[i]])), 2, (3, -1)),
    ("embedding_dense_backward", lambda i: (torch.ones(1, 4), WHOLE([i]), 3, -1, False), 2, (3, -1)),
    ("nll_loss_backward", lambda i: (WHOLE(1.0), X, WHOLE([0, 1, i]), None, 1, -100, WHOLE(3.0)), 3, (4, -1)),
]


@pytest.mark.parametrize(("op", "given", "fine", "wrong"), CALLS, ids=[c[0] for c in CALLS])
def test_places_are_looked_at_before_a_gpu_would_end_for_them(op, given, fine, wrong):
    assert torch.equal(fitted(op, *given(fine)), plain(op, *given(fine)))
    for place in wrong:
        with pytest.raises(IndexError, match="out of range"):
            fitted(op, *given(place))


def test_a_class_that_is_ignored_and_masks_are_let_pass():
    target = WHOLE([0, -100, 3])
    call = gpu.fitted("aten.nll_loss_forward.default", aten.nll_loss_forward.default,
                      lambda a, k, seed: aten.nll_loss_forward(*a, **k), HERE)  # fmt: skip
    assert call([X, target, None, 1, -100], {}, None)[0] == aten.nll_loss_forward(X, target, None, 1, -100)[0]
    assert torch.equal(fitted("index_put", X, [WHOLE([True, False, True])], WHOLE(1.0))[1], X[1])


def test_what_checks_values_and_what_no_gpu_has_runs_on_the_cpu():
    with pytest.raises(RuntimeError, match=r"between 0 and 1"):
        fitted("binary_cross_entropy", WHOLE([2.0]), WHOLE([1.0]))
    moved = gpu.hosted(lambda a, k, seed: [a[0].device, a[1][0].device, k["x"].device], torch.device("meta"))
    t = torch.ones(2)
    assert moved([t, [t]], {"x": t}, None) == [HERE] * 3
    made = gpu.hosted(lambda a, k, seed: [a[0], None], torch.device("meta"))([t], {}, None)
    assert made[0].device.type == "meta"
    assert made[1] is None


def test_a_gpu_that_is_lost_is_not_a_failed_operation(monkeypatch):
    """The child ends then, and says so; that each operation from there on is lost in silence would say nothing."""

    def broken(*_):
        raise torch.AcceleratorError("device-side assert triggered")

    monkeypatch.setattr(compiled, "_caller", lambda *_: broken)
    monkeypatch.setattr(compiled, "_KINDS", {})
    tape = LocalTape()
    made = tape.asset(torch.ones(3), Label("private", ("scans",))) + 1
    with pytest.raises(torch.AcceleratorError):
        tape.held(made)


ASKED = """
import torch
def asked(*_): raise SystemExit("it asked for a GPU")
torch.backends.cuda.is_built = lambda: True
from syft_lab.kernel.executor import zygote
for name in zygote.MODULES:
    if name.startswith("torch"):
        __import__(name)
torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = asked
torch.Tensor.backward = asked
zygote.MODULES = ["torch"]
zygote.preload()
print("fine")
"""


def test_the_fork_server_of_a_machine_with_a_gpu_does_not_look_for_it():
    """The driver starts a thread, and does not work in a process that was forked after it."""
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, timeout=120)
    assert done.stdout == "fine\n", done.stderr
