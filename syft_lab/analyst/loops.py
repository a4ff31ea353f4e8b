"""Where a recording repeats itself: the iterations of a loop become equal plans, which travel once and stay ready.

Pure: it looks at the names of operations in their order. Whatever it says, the same is computed; only its division into
plans differs. A loop is kept as the operations of one iteration, begun where the fewest values cross from one to the next,
which for a training is between two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from syft_lab.plans import Node, Ref, refs

SHORTEST = (
    64  # operations: fewer cost more as a plan of their own than they save; two or more iterations of a short loop are one
)
STEADY = 24  # likewise, of those within an iteration that are the same in each


class Loop(NamedTuple):
    """The operations of one iteration, and where to cut within it: between those that have the same numbers in each iteration
    and those that have not (``x[i]``, an optimizer's count of its steps)."""  # noqa: D209

    ops: tuple[str, ...]
    inner: tuple[int, ...]


NONE = Loop((), ())


def found(nodes: Sequence[Node]) -> Loop:
    """The loop whose iterations the recording ends with, two of them or more; `NONE` where there is none."""
    ops = [node.op for node in nodes]
    count = len(ops)
    for period in range(SHORTEST, count // 2 + 1):
        if ops[-1] == ops[-1 - period] and ops[-period:] == ops[-2 * period : -period]:
            start = _quietest(nodes, count - 2 * period, count - period)
            return Loop(tuple(ops[start : start + period]), _inner(nodes, start, period))
    return NONE


def _inner(nodes: Sequence[Node], start: int, period: int) -> tuple[int, ...]:
    """Where stretches of steady operations begin and end within an iteration."""
    cuts: list[int] = []
    begin = 0
    for place in range(period + 1):
        at = start + place
        twin = at + period if at + period < len(nodes) else at - period  # of the iteration after, or before
        steady = place < period and _numbers(nodes[at]) == _numbers(nodes[twin])
        if not steady:
            if place - begin >= STEADY:
                cuts += [begin, place]
            begin = place + 1
    return tuple(c for c in cuts if 0 < c < period)


def _numbers(node: Node) -> Any:
    """What an operation is given beside values; seeds come with each run."""

    def walk(arg: Any) -> Any:
        if type(arg) is Ref:
            return Ref
        return [walk(a) for a in arg] if type(arg) in (list, tuple) else (type(arg), arg)

    return [walk(a) for a in node.args], {k: walk(v) for k, v in node.kwargs.items() if k != "seed"}


def _quietest(nodes: Sequence[Node], first: int, last: int) -> int:
    """The place from ``first`` to before ``last`` that the fewest values cross."""
    made = {out: i for i, node in enumerate(nodes) for out in node.outs if out is not None}
    used: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for number in refs(node):
            used[number] = i
    change = [0] * (len(nodes) + 1)
    for number, i in made.items():
        end = used.get(number, i)
        change[i + 1] += 1
        change[end + 1 if end >= i else i + 1] -= 1
    crossing, best, least = 0, first, len(nodes) + 1
    for place, by in enumerate(change):
        crossing += by
        if first <= place < last and crossing < least:
            best, least = place, crossing
    return best


def cut(nodes: Sequence[Node], loop: Loop) -> list[int]:
    """Where to cut the recording: around, and within, each iteration of the loop that is whole. Positions, from low to high."""
    size = len(loop.ops)
    if not size:
        return []
    ops = [node.op for node in nodes]
    cuts: list[int] = []
    at = 0
    while at + size <= len(ops):
        if ops[at] == loop.ops[0] and tuple(ops[at : at + size]) == loop.ops:
            cuts += [at, *(at + c for c in loop.inner), at + size]
            at += size
        else:
            at += 1
    return sorted(set(cuts))
