"""Cards, gauges and tables as plain HTML, and as text for terminals and saved notebooks.

Colours come from JupyterLab's theme variables, so that light and dark both read well; everything that others wrote is
escaped, and characters that deceive the eye (controls, bidirectional marks, invisible ones) are shown as escapes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from syft_lab.printable import printable

# Classes are doubled to outweigh the styles that JupyterLab gives to any table in an output. A notebook that is not
# trusted loses the style sheet; tables still read well then.
_STYLE = """<style>
.syft-card.syft-card{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.45;max-width:46em;
color:var(--jp-ui-font-color1,#1a1a1a);background:var(--jp-layout-color1,#fff);border:1px solid var(--jp-border-color2,#d0d0d0);
border-left:4px solid var(--jp-brand-color1,#1976d2);border-radius:4px;padding:10px 14px;margin:4px 0;overflow-wrap:anywhere}
.syft-card.syft-card h4{margin:0 0 4px;font-size:14px;font-weight:600}
.syft-card.syft-card .syft-dim,.syft-card.syft-card th{color:var(--jp-ui-font-color2,#616161)}
.syft-card.syft-card table{border-collapse:collapse;border:none;margin:4px 0;font-size:13px;table-layout:auto;width:auto}
.syft-card.syft-card tr,.syft-card.syft-card tr:hover,.syft-card.syft-card tr:nth-child(n){background:none;border:none}
.syft-card.syft-card th,.syft-card.syft-card td{text-align:left;vertical-align:top;padding:1px 16px 1px 0;border:none;
max-width:none;white-space:normal;color:var(--jp-ui-font-color1,#1a1a1a)}
.syft-card.syft-card th{font-weight:500;color:var(--jp-ui-font-color2,#616161);white-space:nowrap}
.syft-gauge{display:flex;height:10px;border-radius:5px;overflow:hidden;margin:3px 0 6px;max-width:30em;
background:var(--jp-layout-color3,#e0e0e0)}
.syft-gauge .spent{background:var(--jp-warn-color1,#e65100)}.syft-gauge .reserved{background:var(--jp-warn-color3,#ffb74d)}
.syft-gauge .next{background:var(--jp-brand-color2,#64b5f6)}
.syft-card.syft-card .syft-warn{color:var(--jp-error-color1,#c62828);font-weight:600}
</style>"""


@dataclass(frozen=True)
class Gauge:
    """One budget: amounts in ε. ``next`` is what the next question would take."""

    label: str
    cap: float
    spent: float
    reserved: float
    next: float = 0.0
    note: str = ""

    @property
    def left(self) -> float:
        """What may still be asked for."""
        return self.cap - self.spent - self.reserved

    def text(self) -> str:
        """One line with a bar of 20 characters."""
        cells = 20
        full = min(cells, round(cells * self.spent / self.cap)) if self.cap else 0
        part = min(cells - full, round(cells * self.reserved / self.cap)) if self.cap else 0
        bar = "█" * full + "▒" * part + "·" * (cells - full - part)
        line = f"{self.label}: [{bar}] ε spent {self.spent:g}, reserved {self.reserved:g}, left {self.left:g} of {self.cap:g}"
        return "; ".join(
            [line, *([f"the next question takes {self.next:g}"] if self.next else []), *([self.note] if self.note else [])]
        )

    def html(self) -> str:
        """A bar with its numbers."""
        share = {k: 100 * getattr(self, k) / self.cap if self.cap else 0 for k in ("spent", "reserved")}
        share["next"] = min(100 * self.next / self.cap if self.cap else 0, 100 - share["spent"] - share["reserved"])
        parts = "".join(f'<div class="{k}" style="width:{v:.2f}%"></div>' for k, v in share.items())
        asked = f" · the next question takes {self.next:g}" if self.next else ""
        note = f'<div class="syft-dim">{safe(self.note)}</div>' if self.note else ""
        label = f"{self.label}: spent {self.spent:g}, reserved {self.reserved:g}, left {self.left:g} of {self.cap:g}"
        return (
            f'<div><b>{safe(self.label)}</b> <span class="syft-dim">ε spent {self.spent:g} · reserved {self.reserved:g} · '
            f"left <b>{self.left:g}</b> of {self.cap:g}{asked}</span>"
            f'<div class="syft-gauge" role="img" aria-label="{safe(label)}">{parts}</div>{note}</div>'
        )


def exact_releases(count: int) -> str:
    """How many exact results left, in words; empty for none."""
    return f"{count} exact release{'s' if count != 1 else ''} by approval, which no ε bounds" if count else ""


def safe(text: object) -> str:
    """``text`` for HTML: escaped, and with deceiving characters spelled out."""
    return html.escape(visible(text))


def visible(text: object) -> str:
    """``text`` with control, bidirectional and invisible characters spelled out as escapes; lines stay lines."""
    return printable(text, lines=True)


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """A list of names and values."""
    rows = "".join(f'<tr><th scope="row">{safe(k)}</th><td>{_value(v)}</td></tr>' for k, v in pairs)
    return f"<table>{rows}</table>"


def _value(value: object) -> str:
    """Several lines are code, or other text that stands as it is."""
    return text(str(value)) if "\n" in str(value) else safe(value)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> str:
    """A small table, or the sentence ``empty``."""
    body = "".join("<tr>" + "".join(f"<td>{safe(c)}</td>" for c in row) + "</tr>" for row in rows)
    if not body:
        return f'<div class="syft-dim">{safe(empty)}</div>'
    names = "".join(f'<th scope="col">{safe(h)}</th>' for h in head)
    return f"<table><tr>{names}</tr>{body}</table>"


def card(title: str, *parts: str) -> str:
    """A card; ``parts`` are HTML made by the functions here."""
    return f'{_STYLE}<div class="syft-card"><h4>{safe(title)}</h4>{"".join(parts)}</div>'


def text(content: str) -> str:
    """Text as it stands, in a monospaced font."""
    return f'<pre style="margin:4px 0;white-space:pre-wrap">{safe(content)}</pre>'


def note(text: str, warn: bool = False) -> str:
    """A sentence, dim or as a warning."""
    return f'<div class="{"syft-warn" if warn else "syft-dim"}">{safe(text)}</div>'
