"""What a kernel can have a runner do is in one table, and what is not there is refused."""

import ast
from pathlib import Path

import pytest

import syft_lab.kernel
from syft_lab.errors import LabError
from syft_lab.kernel.executor.plans import COMMANDS, Here, answer

SOURCES = sorted(Path(syft_lab.kernel.__file__).parent.glob("**/*.py"))


def sent():
    """The first argument of each ``seat.call(…)`` and the like, by the place that it stands in."""
    found = {}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                at = None if ast.unparse(node.func.value).endswith("kind") else {"call": 0, "leaving": 1}.get(node.func.attr)
                if at is not None:
                    found[f"{source.name}:{node.lineno}"] = node.args[at]
    return found


def test_every_command_that_the_kernel_sends_is_in_the_table():
    names = {place: arg.value for place, arg in sent().items() if isinstance(arg, ast.Constant)}
    assert {place: name for place, name in names.items() if name not in COMMANDS} == {}
    assert set(COMMANDS) - set(names.values()) == {"stats"}
    others = [ast.unparse(arg) for place, arg in sent().items() if place not in names]
    assert [o for o in others if o != "do" and not o.startswith("*")] == []  # no command is put together


@pytest.mark.parametrize("name", ["no-such-command", "", "Run", "_run", "close"])
def test_a_command_that_is_not_in_the_table_is_an_error_and_does_nothing(name):
    with pytest.raises(LabError, match=f"command '{name}'"):
        answer(object(), name, {}, ())
    here = Here("cpu", 1 << 20, 10.0)
    with pytest.raises(LabError, match=f"command '{name}'"):
        here.call(name, {})
    here.close()
