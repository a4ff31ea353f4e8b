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


def mapped(program: Program, flags: Sequence[int]) -> Callable[..., Results]:
    """Of whole arguments the results of a program of one record; ``flags`` say 0 of those that are mapped."""
    dims = tuple([0 if flag == 0 else None for flag in flags])
    run = torch.func.vmap(program, in_dims=dims, randomness="error")

    def call(*given: Tensor) -> Results:
        args = [
            a.contiguous() if flag == 0 else a for a, flag in zip(given, flags, strict=True)
        ]  # as a record is thought to lie
        try:
            return Results(run(*args))
        except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception:  # on some record, perhaps: which ones is found out below, or it is raised there
            return _apart(run, flags, args)

    return call


def _apart(run: Callable[..., tuple[Tensor, ...]], flags: Sequence[int], args: Sequence[Tensor]) -> Results:
    """Results with NaN for the records that fail; raises what the program raises where it fails on tame ones too."""
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
    results = Results([t.index_fill(0, failed, math.nan if t.is_floating_point() or t.is_complex() else 0)
                       for t in chosen(everyone[good], tame)])  # fmt: skip
    results.filled = len(failed)
    return results
