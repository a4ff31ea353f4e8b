"""A plan as a picture: an SVG of operations in rows by depth, with the plan's text for those who can't see it."""

from __future__ import annotations

import html
from collections.abc import Sequence

MOST, WIDTH, HEIGHT, GAP = 120, 150, 26, 34
Step = tuple[str, Sequence[int], Sequence[int]]  # what it is called, the values that it reads, those that it makes


def svg(inputs: int, steps: Sequence[Step], outputs: Sequence[int], text: str) -> str:
    """HTML of the picture; beyond `MOST` operations the text alone. Colours are the theme's."""
    listing = f"<details><summary>{len(steps)} operations</summary><pre>{html.escape(text)}</pre></details>"
    if len(steps) > MOST:
        return listing
    rows: dict[int, list[tuple[str, Sequence[int], Sequence[int]]]] = {0: [(f"input %{i}", (), (i,)) for i in range(inputs)]}
    depth = dict.fromkeys(range(inputs), 0)
    for name, reads, makes in steps:
        at = 1 + max((depth[r] for r in reads), default=0)
        rows.setdefault(at, []).append((name, reads, makes))
        depth |= dict.fromkeys(makes, at)
    place: dict[int, tuple[float, float]] = {}
    boxes, lines = [], []
    width = max(len(r) for r in rows.values()) * (WIDTH + 16) + 16
    for at, row in sorted(rows.items()):
        for i, (name, reads, makes) in enumerate(row):
            x, y = 16 + i * (WIDTH + 16), 8 + at * (HEIGHT + GAP)
            place |= dict.fromkeys(makes, (x + WIDTH / 2, y + HEIGHT))
            lines += [_line(place[r], (x + WIDTH / 2, y)) for r in dict.fromkeys(reads) if r in place]
            strong = any(m in outputs for m in makes)
            boxes.append(_box(x, y, name, strong))
    height = 16 + (max(rows) + 1) * (HEIGHT + GAP)
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'style="max-width:100%;height:auto;font:12px system-ui,sans-serif" aria-label="a plan of {len(steps)} operations">'
        f"{''.join(lines)}{''.join(boxes)}</svg>"
    )
    return picture + listing


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    (a, b), (c, d) = start, end
    middle = (b + d) / 2
    return f'<path d="M{a} {b} C{a} {middle} {c} {middle} {c} {d}" fill="none" style="stroke:var(--jp-border-color1,#9e9e9e)"/>'


def _box(x: float, y: float, name: str, strong: bool) -> str:
    said = html.escape(name if len(name) <= 22 else name[:21] + "…")
    border = "var(--jp-brand-color1,#1976d2)" if strong else "var(--jp-border-color1,#bdbdbd)"
    return (
        f'<g><title>{html.escape(name)}</title><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="4" '
        f'style="fill:var(--jp-layout-color1,#fff);stroke:{border};stroke-width:{2 if strong else 1}"/>'
        f'<text x="{x + WIDTH / 2}" y="{y + 17}" text-anchor="middle" style="fill:var(--jp-ui-font-color1,#1a1a1a)">'
        f"{said}</text></g>"
    )
