"""What an owner may know of code before approving it: what changed, what it gave on mocks, how much hangs on one person.

All of it is a help, never a proof: code can tell a mock from real data. What ran on the mock is public, and a policy may
go by it; what ran on real data (`Runs.drop_people`) is for the owner's eyes alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from syft_lab import values
from syft_lab.kernel.requests.rows import Row, Rows

NEAR, COMPARED, MAX_DIFF, SHORT = 0.8, 200, 400, 4_000


def grown(small: bytes, large: bytes) -> list[str]:
    """Names of the outputs with more elements where there were more rows."""
    before, after = values.decode(small), values.decode(large)
    return [n for n in before if _elements(after[n]) > _elements(before[n])]


def _elements(value: values.Value) -> int:
    found = 1
    for size in value.shape:
        found *= size
    return found


def change(one: bytes, other: bytes) -> dict[str, float | None]:
    """How much each output differs: the largest change of a number, relative to the largest; None: in form or in text."""
    import numpy as np

    before, after = values.decode(one), values.decode(other)
    found: dict[str, float | None] = {}
    for name, value in before.items():
        twin = after[name]
        if [bytes(f) for f in value.frames] == [bytes(f) for f in twin.frames] and value.shape == twin.shape:
            found[name] = 0.0
            continue
        a, b = _numbers(value), _numbers(twin)
        if a is None or b is None or a.shape != b.shape:
            found[name] = None
            continue
        both = np.isfinite(a) & np.isfinite(b)
        scale = float(np.abs(a[both]).max(initial=0.0))
        gap = float(np.abs(a[both] - b[both]).max(initial=0.0))
        found[name] = None if not np.array_equal(np.isfinite(a), np.isfinite(b)) else gap / scale if scale else float(gap > 0)
    return found


def _numbers(value: values.Value) -> Any:
    import numpy as np

    if value.kind in ("series", "table"):
        if any(dtype == values.TEXT for _, dtype in value.columns[value.index :]):
            return None
        return np.concatenate([np.asarray(c, dtype=float).ravel() for c in _columns(value)] or [np.zeros(0)])
    array = np.asarray(value.value())
    return None if array.dtype.kind == "c" else array.astype(float).ravel()


def _columns(value: values.Value) -> Iterable[Any]:
    shown = value.value()
    return [shown.to_numpy()] if value.kind == "series" else [shown.iloc[:, i].to_numpy() for i in range(shown.shape[1])]


def dropped(base: bytes, others: Sequence[bytes | None]) -> dict[str, Any]:
    """What leaving one person out changed, over some people: by output, how often, and by how much at most."""
    outputs = {n: {"changed": 0, "largest": 0.0, "form": 0} for n in values.decode(base)}
    failed = 0
    for blob in others:
        if blob is None:
            failed += 1
            continue
        for name, moved in change(base, blob).items():
            said = outputs[name]
            said["changed"] += moved != 0.0
            said["form"] += moved is None
            said["largest"] = max(said["largest"], moved or 0.0)
    return {"people": len(others), "failed": failed, "outputs": outputs}


def earlier(desk: Rows, row: Row) -> dict[str, Any]:
    """The last approved version of a request's code, near-identical ones before it, and what changed since."""
    cell = desk.cell(row)
    lines = cell.code.split("\n")
    names = {u.dataset for u in cell.use}
    near: list[dict[str, Any]] = []
    approved: tuple[Row, list[str]] | None = None
    before = [r for r in desk.rows() if r.number < row.number][-COMPARED:]
    for old in reversed(before):
        other = desk.cell(old)
        if names.isdisjoint(u.dataset for u in other.use):
            continue
        theirs = other.code.split("\n")
        ratio = _alike(other.code, cell.code)
        if ratio >= NEAR:
            near.append({"number": old.number, "analyst": old.analyst, "state": old.state, "ratio": round(ratio, 3),
                         "same": old.digest == row.digest})  # fmt: skip
            if approved is None and old.state in ("approved", "running", "review", "released", "withheld", "failed"):
                approved = (old, theirs)
    against = approved or next(((r, desk.cell(r).code.split("\n")) for r in before if r.number == row.follows), None)
    diff = [] if against is None else list(difflib.unified_diff(against[1], lines, lineterm="", n=2))[2:][:MAX_DIFF]
    return {"against": against[0].number if against else None, "diff": diff, "near": near[:10]}


def _alike(one: str, other: str) -> float:
    """How alike two texts are, 0 to 1: by character where they are short, else by line."""
    if one == other:
        return 1.0
    short = max(len(one), len(other)) <= SHORT
    matcher = difflib.SequenceMatcher(None, one if short else one.split("\n"), other if short else other.split("\n"), False)
    return matcher.ratio() if matcher.real_quick_ratio() >= NEAR and matcher.quick_ratio() >= NEAR else 0.0


def describe(mock: Mapping[str, Any] | None) -> str:
    """Runs on the mock, in words."""
    if mock is None:
        return "not run yet"
    if "partnership" in mock:
        return "nothing runs: read what you would take part in"
    if "value" in mock:
        what = ", ".join(map(_shape, mock["outputs"])) or "no value"
        return f"nothing runs: it asks for a value of a plan as it was then, {what}" + (
            "" if mock["outputs"] else f" ({mock['value']}; the analyst is not told)"
        )
    how = f"fails: {mock['why']}" if mock["why"] else "gives " + ", ".join(map(_shape, mock["outputs"]))
    touched = mock["touched"]
    reached = [f"imports {', '.join(touched['modules'])}"] if touched.get("modules") else []
    reached += [f"tried to open {', '.join(touched['files'][:5])}"] if touched.get("files") else []
    reached += [f"called {', '.join(touched['other'][:8])}"] if touched.get("other") else []
    memory = f"{mock['peak'] >> 20} MiB" if mock["peak"] >> 20 else "under 1 MiB"
    return "; ".join([how, *reached, f"{mock['seconds']:.2g} s", memory])


def growth(mock: Mapping[str, Any] | None) -> str:
    """Whether results grew with the rows of the mock, in words."""
    if mock is None or mock["why"] or "value" in mock or "partnership" in mock:
        return ""
    grows = mock.get("grows")
    if grows is None:
        return "could not be told: it does not run on a mock of twice the size"
    if grows:
        return f"{', '.join(grows)} grow{'s' if len(grows) == 1 else ''} with the number of rows: this may be row-level output"
    return "no result grows with the number of rows"


def influence(found: Mapping[str, Any] | None, what: str = "row of the mock") -> str:
    """What leaving one person out changed, in words."""
    if not found:
        return ""
    told = []
    for name, said in found["outputs"].items():
        if said["changed"]:
            least = "less than 0.1%" if said["largest"] < 0.001 else f"up to {said['largest']:.1%}"
            by = f", by {least}" if said["largest"] else ""
            form = f", {said['form']} of them in form" if said["form"] else ""
            told.append(f"{name} changed in {said['changed']} of {found['people']} tries{by}{form}")
    told += [f"{found['failed']} of {found['people']} runs failed"] if found["failed"] else []
    return f"leaving one {what} out: " + (
        "; ".join(told) or f"nothing changed in {found['people']} tries, which proves nothing"
    )


def _shape(output: Mapping[str, Any]) -> str:
    size = "×".join(map(str, output["shape"]))
    return f"{output['name']} ({output['kind']}{f' {size}' if size else ''})"
