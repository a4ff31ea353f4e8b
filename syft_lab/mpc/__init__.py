"""Secure computation: tensors that no one owner holds. docs/mpc.md has each protocol with its argument."""
