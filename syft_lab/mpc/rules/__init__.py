"""What torch does to `Share`s: a function for each aten operation, in one table. Each party runs the same program."""

from syft_lab.mpc.rules import arithmetic, conditions, layers, shapes

__all__ = ["arithmetic", "conditions", "layers", "shapes"]
