"""A plan as a picture: operations in rows by depth, with the plan's text for those who can't see it.

In a notebook it is an SVG, which is small and takes the theme's colours; `figure` is for larger plans: Plotly zooms, and shows
the whole line of an operation under the pointer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from syft_lab.widgets.cards import safe

MOST, WIDTH, HEIGHT, GAP = 120, 150, 26, 34
Step = tuple[str, Sequence[int], Sequence[int], str]  # its name, the values that it reads, those that it makes, its whole line


def svg(inputs: int, steps: Sequence[Step], outputs: Sequence[int], text: str) -> str:
    """HTML of the picture; beyond `MOST` operations the text alone. Colours are the theme's."""
    listing = f"<details><summary>{len(steps)} operations</summary><pre>{safe(text)}</pre></details>"
    if len(steps) > MOST:
        return listing
    rows = _rows(inputs, steps)
    place: dict[int, tuple[float, float]] = {}
    boxes, lines = [], []
    width = max(len(r) for r in rows.values()) * (WIDTH + 16) + 16
    for at, row in sorted(rows.items()):
        for i, (name, reads, makes, line) in enumerate(row):
            x, y = 16 + i * (WIDTH + 16), 8 + at * (HEIGHT + GAP)
            place |= dict.fromkeys(makes, (x + WIDTH / 2, y + HEIGHT))
            lines += [_line(place[r], (x + WIDTH / 2, y)) for r in dict.fromkeys(reads) if r in place]
            strong = any(m in outputs for m in makes)
            boxes.append(_box(x, y, name, line, strong))
    height = 16 + (max(rows) + 1) * (HEIGHT + GAP)
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'style="max-width:100%;height:auto;font:12px system-ui,sans-serif" aria-label="a plan of {len(steps)} operations">'
        f"{''.join(lines)}{''.join(boxes)}</svg>"
    )
    return picture + listing


def figure(inputs: int, steps: Sequence[Step], outputs: Sequence[int]) -> Any:
    """A figure of Plotly, legible on light and dark. Beyond `MOST` operations names show under the pointer alone."""
    from plotly import graph_objects

    rows = _rows(inputs, steps)
    place: dict[int, tuple[float, float]] = {}
    x: list[float | None] = []
    y: list[float | None] = []
    dots: list[tuple[float, float, str, str, bool]] = []
    for at, row in sorted(rows.items()):
        for i, (name, reads, makes, line) in enumerate(row):
            here = (i - (len(row) - 1) / 2, -float(at))
            place |= dict.fromkeys(makes, here)
            for r in dict.fromkeys(reads):
                if r in place:
                    x += [place[r][0], here[0], None]
                    y += [place[r][1], here[1], None]
            dots.append((*here, name, line, any(m in outputs for m in makes)))
    made = graph_objects.Figure(
        [
            graph_objects.Scatter(x=x, y=y, mode="lines", line={"color": _GREY, "width": 1}, hoverinfo="skip"),
            graph_objects.Scatter(
                x=[d[0] for d in dots], y=[d[1] for d in dots], mode="markers", hoverinfo="text",
                hovertext=[safe(d[3]) for d in dots],
                marker={"size": 9, "color": [_BLUE if d[4] else _GREY for d in dots]},
            ),
        ]
    )  # fmt: skip
    if len(steps) <= MOST:
        for a, b, name, line, strong in dots:
            made.add_annotation(x=a, y=b, text=safe(name), hovertext=safe(line), showarrow=False, borderpad=4,
                                font={"color": "#fff", "size": 11}, bgcolor=_BLUE if strong else "#546e7a")  # fmt: skip
    hidden = {"visible": False}
    clear = "rgba(0,0,0,0)"
    made.update_layout(
        xaxis=hidden, yaxis=hidden, showlegend=False, paper_bgcolor=clear, plot_bgcolor=clear, dragmode="pan",
        height=min(900, 80 + 56 * (max(rows) + 1)), margin=dict.fromkeys("lrtb", 8),
        meta={"alt": f"a plan of {len(steps)} operations; plan.text has it in words"},
    )  # fmt: skip
    return made


_GREY, _BLUE = "#8a8f98", "#1976d2"


def _rows(inputs: int, steps: Sequence[Step]) -> dict[int, list[Step]]:
    """Inputs in row 0, and each operation one below the lowest that it reads."""
    rows: dict[int, list[Step]] = {0: [(f"input %{i}", (), (i,), f"input %{i}") for i in range(inputs)]}
    depth = dict.fromkeys(range(inputs), 0)
    for step in steps:
        _, reads, makes, _ = step
        at = 1 + max((depth[r] for r in reads), default=0)
        rows.setdefault(at, []).append(step)
        depth |= dict.fromkeys(makes, at)
    return rows


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    (a, b), (c, d) = start, end
    middle = (b + d) / 2
    return f'<path d="M{a} {b} C{a} {middle} {c} {middle} {c} {d}" fill="none" style="stroke:var(--jp-border-color1,#9e9e9e)"/>'


def _box(x: float, y: float, name: str, line: str, strong: bool) -> str:
    said = safe(name if len(name) <= 22 else name[:21] + "…")
    border = "var(--jp-brand-color1,#1976d2)" if strong else "var(--jp-border-color1,#bdbdbd)"
    return (
        f'<g><title>{safe(line)}</title><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="4" '
        f'style="fill:var(--jp-layout-color1,#fff);stroke:{border};stroke-width:{2 if strong else 1}"/>'
        f'<text x="{x + WIDTH / 2}" y="{y + 17}" text-anchor="middle" style="fill:var(--jp-ui-font-color1,#1a1a1a)">'
        f"{said}</text></g>"
    )
