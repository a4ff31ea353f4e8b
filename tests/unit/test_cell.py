import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab import canonical
from syft_lab.cell import MAX_CODE, Cell, check, parse, variable
from syft_lab.errors import LabError, UsageError, WireError

GOOD = Cell("x = t.a.sum()", (("t", 1),), ("x",), {"k": 3}, "why")


def test_terms_come_back_from_their_json():
    assert parse(canonical.dumps(GOOD.to_json())) == GOOD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": "  \n"}, "empty"),
        ({"code": "x = (1"}, "line 1"),
        ({"code": "%matplotlib inline"}, "without magics"),
        ({"code": "x = 1\n!ls"}, "line 2"),
        ({"code": "#" * (MAX_CODE + 1)}, "at most 64 KiB"),
        ({"code": "(" * 5000}, "line 1|nested"),
        ({"code": "x = '\ud800'"}, "characters"),
        ({"code": "x = 1\0"}, "null|characters"),
        ({"use": ()}, "1 to 64 datasets"),
        ({"use": (("t", 1),) * 65}, "1 to 64"),
        ({"use": (("t", 1), ("t", 2))}, "named twice"),
        ({"use": (("a-b", 1), ("a_b", 1))}, "named twice"),
        ({"returns": ()}, "1 to 64 results"),
        ({"returns": ("x", "x")}, "named twice"),
        ({"returns": ("class",)}, "no name"),
        ({"returns": ("__builtins__",)}, "no name"),
        ({"params": {"t": 1}}, "named twice"),
        ({"params": {"k": float("nan")}}, "finite"),
        ({"params": {"k": "x" * 1001}}, "text up to 1000|text to 1000"),
        ({"params": {"k": 2**70}}, "finite"),
        ({"params": {"a b": 1}}, "no name"),
        ({"reason": "x" * 2001}, "2000 characters"),
    ],
)
def test_bad_terms_are_refused_in_words(change, words):
    with pytest.raises(UsageError, match=words):
        check(Cell(**{**{f: getattr(GOOD, f) for f in ("code", "use", "returns", "params", "reason")}, **change}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(string.printable, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@given(st.fixed_dictionaries(dict.fromkeys(("code", "use", "returns", "params", "reason"), JSON)) | JSON)
def test_any_json_is_a_cell_or_refused(value):
    try:
        found = parse(canonical.dumps(value))
    except LabError:
        return
    assert canonical.dumps(found.to_json()) == canonical.dumps(value)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(data):
    with pytest.raises((WireError, UsageError)):
        parse(data)


@given(st.text(max_size=300))
def test_any_text_as_code_is_taken_or_refused_and_never_run(code):
    try:
        check(Cell(code, (("t", 1),), ("x",), {}))
    except UsageError:
        return


def test_every_part_but_the_reason_changes_the_digest():
    base = GOOD.digest(["c"], {"python": "3"})
    parts = {f: getattr(GOOD, f) for f in ("code", "use", "returns", "params", "reason")}
    changes = [
        {"code": "x = 2"},
        {"use": (("t", 2),)},
        {"use": (("u", 1),)},
        {"returns": ("y",)},
        {"params": {"k": 4}},
        {"params": {}},
    ]
    others = {Cell(**{**parts, **c}).digest(["c"], {"python": "3"}) for c in changes}
    others |= {GOOD.digest(["d"], {"python": "3"}), GOOD.digest(["c"], {"python": "4"})}
    assert len(others) == len(changes) + 2
    assert base not in others
    assert Cell(**{**parts, "reason": "other"}).digest(["c"], {"python": "3"}) == base
    assert Cell(**{**parts, "params": {"k": True}}).digest(["c"], {}) != Cell(**{**parts, "params": {"k": 1}}).digest(["c"], {})


def test_names_of_datasets_become_names_of_variables():
    assert [variable(n) for n in ("patients", "my-data", "2024", "a.b")] == ["patients", "my_data", "_2024", "a_b"]


def test_cells_are_checked_in_many_threads_at_once():
    """Python 3.11 can't build syntax trees in two threads at once, and says so with a SystemError."""
    import sys
    import threading

    faults, before = [], sys.getswitchinterval()
    code = "\n".join(f"x{i} = (t.a + {i}) * [j for j in range({i})][-1]" for i in range(300))

    def work():
        try:
            for _ in range(10):
                check(Cell(code, (("t", 1),), ("x1",), {}))
        except BaseException as fault:
            faults.append(fault)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
    finally:
        sys.setswitchinterval(before)
    assert faults == []


@pytest.mark.parametrize(
    "code",
    ["-" * 65_000 + "1", "a" + "+a" * 30_000, "a" + ".b" * 30_000, "a" + "()" * 30_000, "lambda:" * 9_000 + "1",
     "1 if 1 else " * 5_000 + "1", "if a:pass\n" + "elif a:pass\n" * 5_000, "f'{" * 100 + "1" + "}'" * 100],
    ids=range(8),
)  # fmt: skip
def test_code_that_is_nested_without_end_is_refused_in_words(code):
    with pytest.raises(UsageError, match="nested|line 1"):
        check(Cell(code, (("t", 1),), ("x",), {}))
