"""What deceives never reaches a person: the function, where it must be used, and errors with others' text."""

import ast
import functools
import traceback
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import syft_lab
from syft_lab import errors
from syft_lab.printable import INVISIBLE, printable

ROOT = Path(syft_lab.__file__).parent
DECEIVING = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))), "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067",
    "\u2068", "\u2069", "\u200e", "\u200f", "\u061c", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u2028", "\u2029",
    "\u00ad", "\ue000", "\ud800", "\U000e0041", *sorted(INVISIBLE),
]  # fmt: skip
HOSTILE = "a" + "".join(DECEIVING) + "z"


def deceiving(text):
    """Characters of a text that deceive, but for the ends of lines."""
    return {c for c in text if c in DECEIVING or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")} - {"\n"}


@pytest.mark.parametrize("sign", DECEIVING, ids=lambda c: f"{ord(c):04x}")
def test_each_is_spelled_out(sign):
    shown = printable(f"a{sign}z")
    assert shown.startswith("a\\")
    assert shown.isprintable()
    assert sign not in shown


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_deceives_and_what_can_be_seen_stays(text):
    shown, lines = printable(text), printable(text, lines=True)
    assert not deceiving(shown)
    assert "\n" not in shown
    assert lines.replace("\n", "\\n") == shown
    assert printable(shown) == shown
    if text.isprintable() and not INVISIBLE & set(text):
        assert shown == text


@functools.cache
def sources():
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def calls(node, name, inside="<module>"):
    """Calls of a function, each with the function that it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id == name:
            yield inside, child
        yield from calls(child, name, child.name if isinstance(child, ast.FunctionDef) else inside)


def test_every_text_of_an_object_is_made_printable():
    """Dataclasses show their fields by Python's own repr, which escapes; `_repr_html_` goes through cards."""
    bare = [
        f"{path}:{method.lineno}"
        for path, tree in sources().items()
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and method.name in ("__repr__", "__str__")
        and "printed" not in [d.id for d in method.decorator_list if isinstance(d, ast.Name)]
    ]  # fmt: skip
    assert bare == []


# What prints by itself: programs and lines that nobody else's text reaches.
OWN_WORDS = {("kernel/executor/levels.py", "<module>"), ("labels.py", "<module>"), ("kernel/magics.py", "_start"),
             ("analyst/magics.py", "wait")}  # fmt: skip


def test_whatever_is_printed_is_made_printable():
    bare = set()
    for path, tree in sources().items():
        for inside, call in calls(tree, "print"):
            first = call.args[0]
            if not (isinstance(first, ast.Call) and isinstance(first.func, ast.Name) and first.func.id == "printable"):
                bare.add((path, inside))
    assert bare == OWN_WORDS


def below(kind):
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in below(child))]


@pytest.mark.parametrize("kind", below(errors.LabError), ids=lambda k: k.__name__)
def test_an_error_that_carries_others_text_shows_nothing_that_deceives(kind):
    error = errors.from_code(kind.code, HOSTILE)
    texts = [str(error), repr(error), f"{error}", *error._render_traceback_(), *traceback.format_exception_only(error)]
    assert not deceiving("".join(texts))
    assert type(error) is kind


def test_what_a_mock_told_of_a_failure_deceives_nobody():
    assert not deceiving("".join(errors.FailedError("no", f"{HOSTILE}\n{HOSTILE}")._render_traceback_()))
