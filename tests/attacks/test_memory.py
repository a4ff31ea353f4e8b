"""An analyst's plan gives torch arguments that don't belong together, to read what lies next to a tensor."""

from pathlib import Path

import pytest
import torch

from syft_lab import errors
from syft_lab.labels import Label
from tests.attacks.apart import told
from tests.tensors import LocalTape

pytest.importorskip("expecttest", reason="torch's samples need expecttest (the extra `test`)")
aten = torch.ops.aten
# glibc's malloc that notices when the end of a block was written to
CHECKED = Path("/lib/x86_64-linux-gnu/libc_malloc_debug.so.0")


def died(*arguments):
    """Operations whose process died, and how many were tried."""
    checked = {"LD_PRELOAD": str(CHECKED), "GLIBC_TUNABLES": "glibc.malloc.check=3"} if CHECKED.exists() else {}
    found, last = told("memory", *arguments, **checked)
    return {line["op"].split(".")[1]: line["arguments"] for line in found}, last["tried"]


@pytest.mark.slow
def test_no_operation_reads_or_writes_next_to_its_arguments():
    found, tried = died()
    assert not found
    assert tried > 400


def test_a_planted_fault_torch_is_trusted_is_caught():
    unchecked = {
        "native_layer_norm_backward",
        "max_pool2d_with_indices_backward",
        "embedding_dense_backward",
        "nll_loss_backward",
    }
    found, tried = died("--trusting", *unchecked, "relu")
    assert found.keys() == unchecked
    assert tried == 5


def test_sizes_and_places_are_the_owners_to_check():
    tape = LocalTape()
    small, large = tape.send(torch.ones(1, 1)), tape.send(torch.ones(400, 8))
    made = aten._log_softmax_backward_data(large, small, 1, torch.float32)  # this side lets it pass
    assert "don't belong together" in tape.flush()["lost"]
    del made
    with pytest.raises(errors.RefusedOpError, match="_reshape_alias"):
        aten._reshape_alias(tape.send(torch.ones(3)), [3], [100_000])


@pytest.mark.parametrize("place", [16, -1, 10**9])
def test_places_out_of_range_are_an_error_and_of_private_data_lost_in_silence(place):
    def gradient(tape, places):
        return aten.max_pool2d_with_indices_backward(
            tape.send(torch.ones(1, 1, 2, 2)), tape.send(torch.ones(1, 1, 4, 4)), [2, 2], [2, 2], [0, 0], [1, 1], False, places
        )

    places = torch.full((1, 1, 2, 2), place)
    tape = LocalTape()
    made = gradient(tape, tape.send(places))
    assert "index out of range" in tape.flush()["lost"]
    tape = LocalTape()
    made = gradient(tape, tape.asset(places, Label("private", ("scans",))))
    held = tape.held(made)
    assert bool(held.tensor.isnan().all())
    assert "index out of range" in held.why  # which the owner reads
