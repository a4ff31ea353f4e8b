"""A plain report for a compliance officer: who asked what and why, who approved, what left, what it cost, under which digest.

Made from the entries of a journal alone, so that whoever checks the journal can make it again. Markdown; nothing private
is in it, and what others wrote is quoted so that it can't pass for the report's own words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from syft_lab.printable import printable
from syft_lab.wording import asked

COLUMNS = ("entry", "time", "kind", "analyst", "dataset", "question", "epsilon")
MICRO = 10**6
_WORDS = {"exact": "released", "broke": "failed", "cut_off": "interrupted", "ran": "ran", "explained": "kind of error released"}


def report(owner: str, entries: Iterable[Mapping[str, Any]], title: str = "") -> str:
    """The report in Markdown, from parsed entries in order."""
    said = list(entries)
    by_request: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in said:
        if "request" in entry["body"]:
            by_request[entry["body"]["request"]].append(entry)
    filed = [e for e in said if e["kind"] == "filed"]
    times = f"{said[0]['time'][:10]} to {said[-1]['time'][:10]}" if said else "no entries"
    lines = [f"# {title or f'What was asked of {owner}'}", "", f"{len(said)} entries, {times}.", ""]
    lines += ["## In short", "", *_short(said), ""]
    lines += ["## People", "", *_table(("time", "what", "who", "role"), _people(said)), ""]
    lines += ["## Data and budgets", "", *_table(("time", "what", "about", "amount"), _data(said)), ""]
    lines += ["## Questions under differential privacy", "",
              *_table(("time", "analyst", "asked", "of", "cost", "state", "rule"), _questions(said)), ""]  # fmt: skip
    lines += ["## Requests to run code", ""]
    for entry in filed:
        lines += [*_request(entry, by_request[entry["body"]["request"]]), ""]
    lines += [] if filed else ["None.", ""]
    return "\n".join(lines)


def line(seq: int, time: str, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as one row of a log, with a value for each of `COLUMNS`; None where it has none."""
    cost = body.get("epsilon_micro")
    about = {"analyst": body.get("analyst"), "dataset": body.get("dataset"), "question": asked(body) or None}
    return {"entry": seq, "time": time, "kind": kind, **about, "epsilon": None if cost is None else cost / MICRO}


def _short(said: list[Mapping[str, Any]]) -> list[str]:
    counts: defaultdict[str, int] = defaultdict(int)
    spent: defaultdict[str, int] = defaultdict(int)
    for entry in said:
        counts[entry["kind"]] += 1
        if entry["kind"] == "reserved":
            spent[entry["body"]["population"]] += entry["body"]["epsilon_micro"]
    exact = counts["exact"] + counts["explained"]
    lines = [f"- {counts['released']} answers under differential privacy, {exact} exact releases, {counts['filed']} requests "
             f"filed, {counts['denied']} denied, {counts['withheld']} results withheld, {counts['revoked']} accesses "
             "revoked"]  # fmt: skip
    lines += [f"- spent on {text(p)}: ε = {amount / MICRO:g} (what was reserved and not released counts as spent)"
              for p, amount in sorted(spent.items())]  # fmt: skip
    return lines


def _people(said: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, ...]]:
    for entry in said:
        kind, body = entry["kind"], entry["body"]
        if kind in ("invited", "enrolled", "rotated", "revoked"):
            yield (entry["time"], kind, body["analyst"], body.get("role", ""))
        elif kind == "role":
            yield (entry["time"], "role defined", "", f"{body['role']}: {', '.join(body['rights'])}")


def _data(said: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, ...]]:
    for entry in said:
        kind, body = entry["kind"], entry["body"]
        if kind in ("published", "withdrawn"):
            amount = _cost(body["new_population"]) if body.get("new_population") else ""
            yield (entry["time"], kind, f"{body['dataset']} v{body['version']} {body.get('population', '')}", amount)
        elif kind == "topped_up":
            yield (entry["time"], "topped up", f"{body['population']} {body['analyst'] or '(all)'}", _cost(body))
        elif kind == "merged":
            yield (entry["time"], "merged", f"{body['population']} into {body['into']}", "")
        elif kind == "restored":
            yield (entry["time"], "an old copy was restored, and confirmed", "", "")
        elif kind in ("allowed", "disallowed"):
            yield (entry["time"], f"rule {body['rule']} {'made' if kind == 'allowed' else 'taken back'}", _rule(body), "")


def _rule(body: Mapping[str, Any]) -> str:
    terms = {k: v for k, v in body.get("terms", {}).items() if v not in (None, "", False, {})}
    return ", ".join(f"{k}={v}" for k, v in terms.items())


def _questions(said: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, ...]]:
    ended = {e["body"]["request"]: e["kind"] for e in said if e["kind"] in ("released", "failed", "interrupted")}
    for entry in said:
        body = entry["body"]
        if entry["kind"] == "reserved":
            state = ended.get(body["request"], "reserved")
            yield (entry["time"], body["analyst"], asked(body), f"{body['dataset']} v{body['version']}", _cost(body), state,
                   str(body.get("rule", "")))  # fmt: skip


def _request(filed: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> list[str]:
    body = filed["body"]
    cell = body["cell"]
    lines = [f"### Request {body['number']} from {text(body['analyst'])}", "", f"- asked on {filed['time']}"]
    lines += [f"- why: {text(cell['reason']) or 'no reason given'}"]
    lines += [f"- reads {text(', '.join(d['dataset'] + ' v' + str(d['version']) for d in body['data']))}"
              f", returns {text(', '.join(cell['returns']))}"]  # fmt: skip
    lines += [f"- follows request {body['follows']}"] if body.get("follows") else []
    lines += [f"- digest `{body['digest']}`"]
    for entry in entries:
        kind, said = entry["kind"], entry["body"]
        if kind == "filed":
            continue
        by = f" by {text(said['by'])}" if "by" in said else ""
        why = f": {text(said['why'])}" if said.get("why") else ""
        left = f"; left: {text(', '.join(o['name'] + ' (' + o['kind'] + ')' for o in said['outputs']))}, " \
            "exact, no ε" if kind == "exact" else ""  # fmt: skip
        left = f"; left: {text(said['error']['type'])} in line {said['error']['line']}" if kind == "explained" else left
        comment = f": {text(said['text'])}" if kind == "commented" else ""
        again = f" ({text(said['what'])})" if kind == "tried" else ""
        lines.append(f"- {entry['time']} {_WORDS.get(kind, kind)}{again}{by}{why}{comment}{left}")
    return lines


def _cost(body: Mapping[str, Any]) -> str:
    delta = body.get("delta_pico", 0)
    return f"ε = {body['epsilon_micro'] / MICRO:g}" + (f", δ = {delta / 10**12:g}" if delta else "")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    made = [f"| {' | '.join(text(c) for c in row)} |" for row in rows]
    if not made:
        return ["None."]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *made]


def text(value: object) -> str:
    """What others wrote, as text in Markdown: on one line, without markup, control or invisible characters."""
    shown = []
    for sign in str(value)[:2000]:
        if sign in "\n\r\t":
            shown.append(" ")
        elif printable(sign) != sign:
            shown.append(f"\\\\u{ord(sign):04x}")
        elif sign in "\\`*_{}[]<>#|~&":
            shown.append(f"\\{sign}")
        else:
            shown.append(sign)
    return "".join(shown)
