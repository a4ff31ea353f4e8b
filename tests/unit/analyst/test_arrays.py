"""NumPy's functions on pointers: each gives what NumPy gives, or is refused in words."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import syft_lab as lab
from syft_lab import errors
from syft_lab.analyst import arrays

CALLS = (Path(__file__).parent / "numpy_calls.txt").read_text().splitlines()
REFUSED = {
    errors.RefusedOpError: "np.interp(v, v, v)|np.unwrap(v)|np.sum(x, initial=3.0)|np.sum(x, where=b)|np.pad(x, 1, 'reflect')|"
    "np.add(x, 1, out=x)|np.sum(v, out=v)|np.add.reduce(x)|np.add(x, 1, dtype=np.float64)|np.reshape(x, (5, 4), order='F')|"
    "np.round(i, -1)|np.histogram(v)|np.copyto(x, 0)|np.fill_diagonal(q, 0)|np.apply_along_axis(np.sum, 0, x)|"
    "np.take(x, 25, mode='clip')|np.cov(x, aweights=v)|np.linalg.cholesky(q, upper=True)|np.median(x, overwrite_input=True)",
    errors.PrivateValueError: "np.unique(i)|np.nonzero(i)|np.argwhere(i)|np.where(b)|np.bincount(np.ravel(i))|np.array_equal(x, x)|"
    "np.allclose(x, x)|np.vectorize(abs)(x)|np.asarray(x)|np.array_equiv(x, x)",
    errors.UsageError: "np.digitize(x, [1, 0])|np.digitize(x, np.sort(v))",
}


@pytest.fixture(scope="module")
def places():
    """The arrays that the calls are about, and pointers to the same."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(4, 5)).astype("f4")
    i = draw.integers(0, 9, (4, 5))
    n = x.copy()
    n[0, 1] = n[3, 3] = np.nan
    n[2] = np.inf
    local = {"x": x, "i": i, "q": x[:4, :4].copy(), "v": x[0].copy(), "b": x > 0.2, "n": n, "t": draw.normal(size=(2, 3, 4)),
             "z": x + 1j * x[::-1], "e": np.zeros(0, "f4"), "np": np}  # fmt: skip
    (owner,) = lab.virtual_owners("numpy-owner")
    sent = {k: lab.send(torch.from_numpy(a.copy()), owner) for k, a in local.items() if k != "np"}
    yield local, {**sent, "np": np}
    owner.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", CALLS)
def test_a_function_gives_what_it_gives_in_numpy(places, call):
    local, sent = places
    wanted, found = np.asarray(eval(call, dict(local))), eval(call, dict(sent))
    if isinstance(found, torch.Tensor):
        found = found.get().numpy()
    assert np.shape(found) == wanted.shape
    assert np.allclose(found, wanted, atol=2e-4, rtol=1e-3, equal_nan=True)
    kinds = [np.asarray(a).dtype.kind for a in (found, wanted)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize(("kind", "call"), [(k, c) for k, calls in REFUSED.items() for c in calls.split("|")])
def test_what_has_no_counterpart_or_would_tell_values_is_refused(places, kind, call):
    with pytest.raises(kind):
        eval(call, dict(places[1]))


def test_each_function_that_is_let_through_is_among_these():
    called = set(re.findall(r"np\.([\w.]+)\(", "\n".join((*CALLS, *REFUSED.values()))))
    named = {_name(found) for found in map(_found, called) if found is not None}
    let = {*arrays._OWN, *arrays._ELEMENTWISE, *arrays._COMPATIBLE, *arrays._TRUTHS}
    assert let - named == set()


def _found(name):
    """The function; None for a method of a ufunc, or no name."""
    found = np
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _name(found):
    return found.__name__ if isinstance(found, np.ufunc) else f"{found.__module__}.{found.__name__}".removeprefix("numpy.")


def test_labels_are_those_of_torchs_functions(places):
    (owner,) = lab.virtual_owners("labelled")
    owner.publish(torch.rand(20, 3), "scans", bounds=(0, 1))
    x = owner["scans"]
    for ours, torchs in ((np.sum(x, axis=0), x.sum(0)), (np.mean(np.clip(x, 0, 0.5), axis=0), x.clamp(0, 0.5).mean(0)),
                         (np.multiply(x, np.float64(2)), x * 2), (np.tanh(x), x.tanh()), (x > np.ones(3, "f4"), x > torch.ones(3)),
                         (np.transpose(x), x.T), (np.median(x), x.quantile(0.5))):  # fmt: skip
        assert ours.label == torchs.label
    assert np.sum(np.clip(x, 0, 1), axis=0).label.kind == "aggregate"
    owner.close()


def test_gradients_flow_through_them(places):
    x = torch.randn(4, 3)
    p = lab.send(x, places[1]["x"].location).requires_grad_(True)
    np.sum(np.square(np.concatenate([p, p], axis=1))).backward()
    assert torch.allclose(p.grad.get(), 4 * x)
