"""Nothing that reaches `get` comes from memory that its plan did not write."""

import pytest
import torch

from syft_lab import ops
from syft_lab.plans import Node, Plan, Ref
from tests.attacks import unwritten
from tests.attacks.apart import told
from tests.tensors import LocalTape

pytest.importorskip("expecttest", reason="torch's samples need expecttest (the extra `test`)")
pytestmark = pytest.mark.skipif(not unwritten.fills(), reason="this C library does not fill memory with a pattern")
# Reached by what torch runs elsewhere, or on a GPU alone, or views of what is given.
NEVER = {
    "_fused_rms_norm_backward",
    "_thnn_fused_gru_cell",
    "_thnn_fused_lstm_cell",
    "linalg_lstsq",
    "select",
}


@pytest.mark.slow
def test_no_public_output_of_any_operation_holds_what_lay_in_memory():
    found, last = told("unwritten")
    assert found == []
    assert set(last["never"]) <= NEVER
    assert len(last["reached"]) > 450


def test_gaps_and_places_beyond_the_entries_hold_nothing():
    tape = LocalTape()
    p = tape.send(torch.zeros(1))
    unwritten.filled(0x5A)
    try:
        whole = [tape.get(torch.as_strided(p.new_empty_strided((2,), (99,)), (100,), (1,), 0)),
                 tape.get(torch.as_strided(torch.as_strided_scatter(p.new_empty_strided((2,), (99,)), torch.ones(2), (2,), (99,)), (100,), (1,), 0))]  # fmt: skip
    finally:
        unwritten.trial._perturb(0)
    assert whole[0].abs().sum() == 0 and whole[1].abs().sum() == 2


@pytest.mark.parametrize(("size", "start"), [([9], 0), ([2], 4), ([1], 5), ([3], 3)])
def test_places_beyond_a_value_are_refused(size, start):
    tape = LocalTape()
    p, number = tape.send(torch.arange(5.0)), tape.new().number
    plan = Plan.of([Node("aten.as_strided.default", (Ref(0), size, [1], start), {}, (1,))], [0], [1])
    assert (
        f"places {start} to {start + size[0] - 1} of a value that has 0 to 4"
        in tape.run(plan, [p.current.number], [number])["lost"]
    )


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("zeroed", {"empty", "new_empty", "new_empty_strided"}),
        ("laid_out", {"copy", "select_scatter"}),
        ("modes", {"grid_sampler_3d", "_fft_c2r"}),
    ],
)
def test_a_planted_fault_memory_as_it_comes_is_caught(name, operations):
    found, _ = told("unwritten", f"--{name}", *operations)
    assert {ops.packet(line["op"]) for line in found} == operations
