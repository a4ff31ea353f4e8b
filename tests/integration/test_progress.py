"""A long wait in a real kernel says how far it is, and leaves nothing behind."""

from .kernels import Kernel

SETUP = """import torch, syft_lab as lab
from syft_lab.analyst import progress
progress.SHOWN_AFTER = progress.EVERY = 0.02
(alice,) = lab.virtual_owners("alice")
x = lab.send(torch.eye(300), alice)
(x + 1).get()
"""
WORK = """for _ in range(200):
    x = x @ x
print(x.sum().get().item())
"""


def test_a_long_computation_says_how_far_it_is(home):
    with Kernel(home) as kernel:
        kernel.run(SETUP)
        shown = kernel.run(WORK, 240).splitlines()
        assert shown[-1] == "300.0"
        told = [line for line in shown if line.startswith("alice: ")]
        assert any("operations" in line for line in told)
        assert "" in shown[shown.index(told[-1]) :]
