"""The slots of all draws under the parties' keys: a name of its own for each step of each protocol.

A draw is named by its turn, the operation and the slot (`randomness`). Parties of one history run one program, so that the
operation says which protocol draws; the slots say it once more. Two protocols never make one draw, even where two parties were
led to run different ones under one turn and one number.
"""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class Draw(IntEnum):
    """One member a step. `AGGREGATE` is the last: all slots from it on are its pieces."""

    ENTER = 0
    ZERO_WORDS = 1
    ZERO_BITS = 2
    COMPARE_BITS = 3
    DABIT_BIT = 4
    DABIT_FIRST = 5
    DABIT_SECOND = 6
    TRUNCATE_PARTS = 7
    TRUNCATE_SHARES = 8
    TRUNCATE_BIT = 9
    TRUNCATE_GIFT = 10
    TRUNCATE_RESULT = 11
    AGGREGATE = 1 << 31
