"""What people write of a rule, in Python or in TOML, and the terms that it becomes. Pure; `rulebook` checks the rest."""

from __future__ import annotations

import math
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Any

from syft_lab.budget.accountant import MICRO, Budget
from syft_lab.errors import UsageError
from syft_lab.kernel.policy import DAYS, Rule, Window


def bounds(name: str, allowed: Any) -> dict[str, Any]:
    """What values of a parameter are approved: a pair of bounds or a list, also as TOML and the journal have them."""
    if isinstance(allowed, Mapping) and set(allowed) == {"values"} and isinstance(allowed["values"], list):
        allowed = allowed["values"]
    elif isinstance(allowed, Mapping) and set(allowed) == {"low", "high"}:
        allowed = (allowed["low"], allowed["high"])
    if isinstance(allowed, list | set | frozenset) and all(isinstance(v, bool | int | float | str) for v in allowed):
        return {"values": sorted(allowed, key=repr)}
    pair = isinstance(allowed, tuple) and len(allowed) == 2
    if not pair or not all(type(b) in (int, float) and math.isfinite(b) for b in allowed) or not allowed[0] <= allowed[1]:
        raise UsageError(f"params[{name!r}] is a pair of bounds, such as (18, 90), or a list of values")
    return {"low": allowed[0], "high": allowed[1]}


def window(hours: str | None, days: str | Sequence[str] | None, zone: str) -> Window | None:
    """The hours and days on which a rule holds; None where neither is given."""
    if hours is None and days is None:
        return None
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", hours or "00:00-24:00")
    if found is None:
        raise UsageError("hours are written 08:00-18:00")
    a, b, c, d = map(int, found.groups())
    if isinstance(days, str):
        first, _, last = days.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise UsageError(f"days are written mon-fri, or as a list of {', '.join(DAYS)}")
        start, end = DAYS.index(first), DAYS.index(last or first)
        days = [DAYS[i % 7] for i in range(start, (end if end >= start else end + 7) + 1)]
    chosen = tuple(d for d in DAYS if d in (days or DAYS))
    if days is not None and (not chosen or not set(days) <= set(DAYS)):
        raise UsageError(f"days are written mon-fri, or as a list of {', '.join(DAYS)}")
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"there is no time zone {ascii(zone)[:60]}; write Europe/Berlin, or UTC") from None
    return Window(60 * a + b, min(60 * c + d, 24 * 60), chosen, zone)


_TOML = {"epsilon_micro": "epsilon_per_query"}


def to_toml(rule: Rule) -> dict[str, Any]:
    """A rule's terms without what is not set, times as people write them."""
    found = {k: v for k, v in rule.to_json().items() if v not in (None, "", False, {})}
    if rule.epsilon_micro is not None:
        found[_TOML["epsilon_micro"]] = found.pop("epsilon_micro") / MICRO
    if rule.window is not None:
        w = rule.window
        found["hours"] = "{:02}:{:02}-{:02}:{:02}".format(*divmod(w.start, 60), *divmod(w.end, 60))
        found |= {"days": list(w.days), "zone": w.zone}
        del found["window"]
    if rule.kind == "code" and rule.verdict == "allow":
        found["review"] = rule.review
    else:
        found.pop("review", None)
    return found


def from_toml(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The terms of one ``[[rule]]``; raises UsageError that names the setting at fault."""
    made = dict(entry)
    made.setdefault("verdict", "allow")
    known = {"kind", "verdict", "analyst", "role", "dataset", "epsilon_per_query", "digest", "same", "template", "params",
             "times", "per", "hours", "days", "zone", "expires", "review", "outputs", "why", "partners"}  # fmt: skip
    wrong = sorted(set(made) - known)
    if wrong:
        raise UsageError(f"a rule has no setting {wrong[0]!r}; it has: {', '.join(sorted(known))}")
    if "epsilon_per_query" in made:
        made["epsilon_micro"] = Budget(made.pop("epsilon_per_query")).cap.epsilon
    made["window"] = window(made.pop("hours", None), made.pop("days", None), made.pop("zone", "UTC"))
    params = made.get("params", {})
    if not isinstance(params, Mapping):
        raise UsageError("params of a rule is a table, such as {age = {low = 18, high = 90}}")
    made["params"] = {k: bounds(k, v) for k, v in params.items()}
    if made["verdict"] == "allow" and made.get("kind") == "dp" and not {"dataset", "epsilon_micro"} <= set(made):
        raise UsageError("a rule that allows questions names dataset and epsilon_per_query")
    if made["verdict"] == "allow" and made.get("kind") == "code" and not {"digest", "same", "template"} & set(made):
        raise UsageError("a rule that allows code names digest, template or same")
    return made
