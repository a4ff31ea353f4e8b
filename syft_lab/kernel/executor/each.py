"""One record's program, run for each record under `torch.func.vmap`: records are kept apart by construction.

What is mapped lies along the first axis of arguments and results; what is not mapped is the same for all. Where the program
fails on some records, these get NaN (whole numbers: 0) in all results: whether a record fails is asked of it beside tame
ones, so that the others' results keep every bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from syft_lab.kernel.executor.total import Results

Program = Callable[..., tuple[Tensor, ...]]


def mapped(program: Program, flags: Sequence[int]) -> tuple[Callable[..., Results], Callable[..., Results]]:
    """Of whole arguments the results of a program of one record, and of the first record alone; ``flags`` are 0 where mapped.

    The second raises what the program raises. It is for records that are made up: see `Runner._check_refusal`.
    """
    dims = tuple([0 if flag == 0 else None for flag in flags])
    run = torch.func.vmap(program, in_dims=dims, randomness="error")

    def call(*given: Tensor) -> Results:
        args = [
            a.contiguous() if flag == 0 else a for a, flag in zip(given, flags, strict=True)
        ]  # as a record is thought to lie
        try:
            *results, failed = run(*args)
            return _counted(_own(results, args), failed)
        except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception:  # on some record, perhaps: which ones is found out below
            return _apart(run, flags, args)

    def one(*given: Tensor) -> Results:
        parts = zip(given, flags, strict=True)
        return Results(
            run(*[(a[:1] if len(a) else a.new_zeros(1, *a.shape[1:])) if flag == 0 else a for a, flag in parts])[:-1]
        )

    return call, one


def _counted(results: Sequence[Tensor], failed: Tensor) -> Results:
    """Results, and of how many records they are none of their own."""
    counted = Results(results)
    counted.filled = int(failed.sum())
    return counted


def _own(results: Sequence[Tensor], args: Sequence[Tensor]) -> list[Tensor]:
    """The results, each in memory of its own, as where some record failed: shared memory would show in what is held."""
    taken = {a.untyped_storage().data_ptr() for a in args}
    own = []
    for t in results:
        own.append(t.clone() if t.untyped_storage().data_ptr() in taken else t)
        taken.add(own[-1].untyped_storage().data_ptr())
    return own


def _apart(run: Callable[..., tuple[Tensor, ...]], flags: Sequence[int], args: Sequence[Tensor]) -> Results:
    """Results with NaN for the records that fail; raises what the program raises where no record works."""
    first = next(a for a, flag in zip(args, flags, strict=True) if flag == 0)
    count = first.shape[0]

    def chosen(places: Tensor, tame: int) -> tuple[Tensor, ...]:
        """The program's results, with these records beside tame ones, all of one number."""
        keep = torch.zeros(count, dtype=torch.bool, device=first.device).index_fill(0, places, True)
        return run(*[
            torch.where(keep.reshape(count, *[1] * (a.dim() - 1)), a, torch.full_like(a, tame)) if flag == 0 else a
            for a, flag in zip(args, flags, strict=True)
        ])  # fmt: skip

    everyone = torch.arange(count, device=first.device)
    try:
        chosen(everyone[:0], tame := 1)
    except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception:
        chosen(everyone[:0], tame := 0)
    bad: list[Tensor] = []
    todo = [everyone]
    while todo:
        part = todo.pop()
        try:
            chosen(part, tame)
        except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception:
            if len(part) == 1:
                bad.append(part)
            else:
                todo += [part[: len(part) // 2], part[len(part) // 2 :]]
    failed = torch.cat(bad) if bad else everyone[:0]
    good = torch.ones(count, dtype=torch.bool, device=first.device).index_fill(0, failed, False)
    *results, guarded = chosen(everyone[good], tame)
    lost = [t.index_fill(0, failed, math.nan if t.is_floating_point() or t.is_complex() else 0) for t in results]
    return _counted(lost, guarded.index_fill(0, failed, True))
