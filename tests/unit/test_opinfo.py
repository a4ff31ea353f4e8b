"""Torch's own samples of its operations: what pointers have gives what torch gives, and what they lack is refused in words."""

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map

from syft_lab.errors import LabError
from syft_lab.record import Recorded
from tests.tensors import LocalTape

pytest.importorskip("expecttest", reason="torch's samples need expecttest (the extra `test`)")

# Results that are drawn, or that nobody filled.
DRAWN = set("bernoulli cauchy exponential geometric log_normal multinomial normal rand_like randint_like randn_like uniform empty_like "
            "new_empty new_empty_strided empty empty_strided empty_permuted randn randint rand".split())  # fmt: skip
# They read values of the wrapper in C++, past every hook; nothing is there to be read.
RAW = {"tensor_split"}


def samples():
    from torch.testing._internal.common_methods_invocations import op_db

    for op in op_db:
        dtypes = op.supported_dtypes("cpu")
        kind = next((d for d in (torch.float32, torch.int64) if d in dtypes), None)
        if kind is not None and op.name.rpartition(".")[2] not in DRAWN:
            yield op, kind


def sent(tape, thing):
    return tape.send(thing) if isinstance(thing, torch.Tensor) and thing.layout is torch.strided else thing


def alike(here, there):
    wide = torch.complex128 if here.is_complex() else torch.float64
    a, b = (t.resolve_conj().resolve_neg().to(wide) for t in (here, there))
    return torch.allclose(a, b, atol=1e-3, rtol=1e-3, equal_nan=True)


@pytest.mark.filterwarnings("ignore")
def test_torchs_samples_of_its_operations_give_what_they_give_on_real_tensors():
    same, refused, wrong = [], [], []
    for op, kind in samples():
        # Not op.sample_inputs: it asks inspect for the whole stack at each call, 60 s in all.
        sample = next(iter(op.sample_inputs_func(op, "cpu", kind, False)), None)
        if sample is None:
            continue
        torch.manual_seed(0)
        try:
            expected = op(sample.input, *sample.args, **sample.kwargs)
        except Exception:
            continue  # torch has no such thing here
        tape = LocalTape()
        args, kwargs = tree_map(lambda t, tape=tape: sent(tape, t), ([sample.input, *sample.args], sample.kwargs))
        try:
            found = op(*args, **kwargs)
        except LabError:
            refused.append(op.name)
            continue
        except RuntimeError as error:
            (refused if op.name in RAW else wrong).append(f"{op.name}: {error}")
            continue
        pairs = list(zip(tree_flatten(expected)[0], tree_flatten(found)[0], strict=True))
        good = all(alike(a, tape.get(b)) if isinstance(b, Recorded) else True for a, b in pairs)
        (same if good else wrong).append(op.name)
    assert wrong == []
    assert len(same) > 550, (len(same), refused)
    assert {"item", "nonzero", "masked_select", "unique", "equal"} <= set(refused)
