"""No two protocols share a draw: each slot belongs to one file, and to numbers or to bits."""

import ast
from collections import defaultdict
from pathlib import Path

from syft_lab.mpc import aby3
from syft_lab.mpc.aby3.draws import Draw

FILES = [p for p in Path(aby3.__file__).parent.glob("*.py") if p.name != "draws.py"]


def slots(source):
    """Names of slots in a file, each with the kinds of draws (words, bits) that it is used for."""
    tree, found = ast.parse(source), defaultdict(set)
    named = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "Draw"}
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)):
        owner = getattr(call.func.value, "attr", getattr(call.func.value, "id", ""))
        if call.func.attr in ("words", "bits") and owner in ("party", "_party"):
            names = {n.attr for n in ast.walk(call.args[2]) if isinstance(n, ast.Attribute)} & named
            assert len(names) == 1, f"a slot that is no member of Draw: {ast.unparse(call)}"
            found[names.pop()].add(call.func.attr)
    return found


def test_each_slot_belongs_to_one_protocol_and_to_one_kind_of_draw():
    owners, kinds = defaultdict(set), defaultdict(set)
    for path in FILES:
        for name, kind in slots(path.read_text()).items():
            owners[name].add(path.name)
            kinds[name] |= kind
    assert owners.keys() == set(Draw.__members__)
    assert all(len(files) == 1 for files in owners.values()), owners
    assert all(len(kind) == 1 for kind in kinds.values()), kinds


def test_slots_are_numbers_of_their_own_and_those_of_pieces_come_after_all():
    numbers = [slot.value for slot in Draw.__members__.values()]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) == Draw.AGGREGATE == 2**31
    assert min(numbers) >= 0
