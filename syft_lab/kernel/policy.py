"""What happens without a click: rules as data, and one pure decision over (who, what, dataset, digest, cost, history).

Every rule that fits a case counts, and the strictest wins: Refuse before Ask before Allow. Where none fits, questions
are refused and code waits for a person. `judge` says of one rule whether it fits, and if not, why; `decide` and
``owner.policy.explain`` both go by it, so that an explanation is never another story than the decision.

What a rule looks at is public or the owner's own: never a row, and no check that ran on real data. The one exception is
``Outputs.min_cell`` and its kin on the result of a rule that lets results leave unseen, which only ever makes it wait.
"""

from __future__ import annotations

import math
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Protocol

from syft_lab.budget.accountant import MICRO, Cost, plain
from syft_lab.kernel.outputs import Observed, Outputs
from syft_lab.printable import printed

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
VERDICTS = ("allow", "ask", "refuse")
Value = bool | int | float | str


@dataclass(frozen=True)
class Window:
    """Hours of the day (``start`` to ``end`` in minutes, through midnight if it ends before it starts) on some ``days``."""

    start: int = 0
    end: int = 24 * 60
    days: tuple[str, ...] = DAYS
    zone: str = "UTC"

    def holds(self, time: datetime) -> bool:
        """Whether a time lies in the window; the day is that on which the window began."""
        local = time.astimezone(zoneinfo.ZoneInfo(self.zone))
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return self.start <= minute < self.end and DAYS[day] in self.days
        if minute >= self.start:
            return DAYS[day] in self.days
        return minute < self.end and DAYS[day - 1] in self.days

    @printed
    def __str__(self) -> str:
        clock = "{:02}:{:02}-{:02}:{:02}".format(*divmod(self.start, 60), *divmod(self.end, 60))
        days = "" if self.days == DAYS else f" on {', '.join(self.days)}"
        return f"{clock}{days} ({self.zone})"


@dataclass(frozen=True, repr=False)
class Rule:
    """One line of a policy. What is None is no condition. ``kind`` is dp (questions), code, or in federations share, move (to a
    partner, who will see it) and receive (what a partner hands over).

    ``digest``: exactly this code. ``same``: what people approved for this analyst before, unchanged. ``template``: this
    code with other values of ``params`` (a pair of bounds, or the values allowed) and other versions of its datasets.
    ``times`` runs, in all or within ``per`` seconds. ``review``: whether the owner sees each result before it leaves.
    ``partners``: sharing with these owners and no others; or, where it is refused, with any of them.
    """

    id: int
    kind: str
    verdict: str = "allow"
    analyst: str | None = None
    role: str | None = None
    dataset: str | None = None
    epsilon_micro: int | None = None
    digest: str | None = None
    same: bool = False
    template: str | None = None
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    times: int | None = None
    per: float | None = None
    window: Window | None = None
    expires: str | None = None
    review: bool = True
    outputs: Outputs | None = None
    why: str = ""
    partners: tuple[str, ...] | None = None

    @classmethod
    def from_json(cls, id: int, terms: Mapping[str, Any]) -> Rule:
        """The rule in a journal entry."""
        known = {f.name for f in fields(cls)} - {"id"}
        made = {k: v for k, v in terms.items() if k in known}
        if made.get("window") is not None:
            made["window"] = Window(**{**made["window"], "days": tuple(made["window"]["days"])})
        if made.get("outputs") is not None:
            made["outputs"] = Outputs.from_json(made["outputs"])
        if made.get("partners") is not None:
            made["partners"] = tuple(made["partners"])
        return cls(id, **made)

    def to_json(self) -> dict[str, Any]:
        """The terms, as the journal keeps them."""
        found: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "id"}
        found["params"] = {k: dict(v) for k, v in self.params.items()}
        if self.window is not None:
            found["window"] = {f.name: getattr(self.window, f.name) for f in fields(self.window)}
            found["window"]["days"] = list(self.window.days)
        if self.outputs is not None:
            found["outputs"] = self.outputs.to_json()
        if self.partners is not None:
            found["partners"] = list(self.partners)
        return found

    @property
    def who(self) -> str:
        """Whom it is about."""
        return self.analyst or (f"every {self.role}" if self.role else "everybody")

    @property
    def what(self) -> str:
        """What it is about."""
        about = f" about {self.dataset}" if self.dataset else ""
        if self.kind == "dp":
            sign = "≤" if self.verdict == "allow" else ">"
            return f"DP questions{about}" + (f" at ε {sign} {plain(self.epsilon_micro)} each" if self.epsilon_micro else "")
        if self.kind in _BETWEEN:
            partners = " and ".join(self.partners) if self.partners else "partners"
            return f"{self.dataset or 'data'} {_BETWEEN[self.kind]} {partners}"
        if self.digest:
            return f"the code {self.digest[:19]}…"
        if self.template:
            ranges = ", ".join(f"{k} {_range(v)}" for k, v in self.params.items())
            return f"code like {self.template[:19]}…" + (f" with {ranges}" if ranges else "")
        return f"code that was approved before{about}" if self.same else f"code{about}"

    @property
    def limits(self) -> str:
        """How often, when, until when, and what may leave."""
        parts = [f"{self.times} times" + (f" in {_span(self.per)}" if self.per else "")] if self.times else []
        parts += [str(self.window)] if self.window else []
        parts += [f"until {self.expires[:16]}"] if self.expires else []
        parts += [f"results: {self.outputs}"] if self.outputs else []
        return "; ".join(parts)

    @printed
    def __repr__(self) -> str:
        verb = {"code": "run", "dp": "ask"}.get(self.kind, self.kind)
        does = {"allow": f"may {verb}", "ask": "waits for a person:", "refuse": f"may not {verb}"}
        then = ""
        if self.kind == "code" and self.verdict == "allow":
            then = ", and you see each result before it leaves" if self.review else ", and results leave without you"
        limits = f" ({self.limits})" if self.limits else ""
        return f"rule {self.id}: {self.who} {does[self.verdict]} {self.what}{limits}{then}"


@dataclass(frozen=True)
class Case:
    """What is to be decided. ``filtered``: it reads chosen rows only. ``observed``: its runs on the mock, once over."""

    kind: str
    analyst: str
    role: str
    datasets: tuple[str, ...]
    time: datetime
    cost: Cost = field(default_factory=lambda: Cost(0))
    digest: str = ""
    template: str = ""
    params: Mapping[str, Value] = field(default_factory=dict)
    filtered: bool = False
    observed: Observed | None = None
    partners: tuple[str, ...] = ()


class Past(Protocol):
    """What a decision may know of the past: see `history.History`."""

    def uses(self, rule: int, since: datetime | None = None) -> int:
        """How often a rule let something run, in all or after ``since``."""

    def agreed(self, digest: str, analyst: str, before: datetime) -> bool:
        """Whether people approved exactly this for this analyst before a time."""


@dataclass(frozen=True)
class Allow:
    """It runs; ``rule`` is the one that says so."""

    rule: Rule


@dataclass(frozen=True)
class Ask:
    """A person decides; ``rule`` says so, or none let it run."""

    rule: Rule | None = None


@dataclass(frozen=True)
class Refuse:
    """It does not run; ``why`` is for the analyst, and says what would let it."""

    why: str
    rule: Rule | None = None


Decision = Allow | Ask | Refuse


def decide(rules: Iterable[Rule], case: Case, past: Past) -> Decision:
    """The decision on a case: the strictest of the rules that fit, the oldest among equals."""
    allowed: Rule | None = None
    asked: Rule | None = None
    for rule in rules:
        if rule.kind != case.kind or judge(rule, case, past):
            continue
        if rule.verdict == "refuse":
            return Refuse(rule.why or f"the owner's policy does not allow this ({rule.who}, {rule.what})", rule)
        if rule.verdict == "ask":
            asked = asked or rule
        else:
            allowed = allowed or rule
    if asked is not None:
        return _asked(case, asked)
    return Allow(allowed) if allowed is not None else _asked(case, None)


def _asked(case: Case, rule: Rule | None) -> Ask | Refuse:
    if case.kind != "dp":
        return Ask(rule)
    line = f'owner.policy.allow("dp", dataset="{case.datasets[0]}", epsilon_per_query={case.cost.epsilon / MICRO:g})'
    return Refuse(f"no policy of the owner allows this question at {case.cost}; the owner can allow it with: {line}", rule)


def judge(rule: Rule, case: Case, past: Past) -> str:
    """Why a rule does not fit a case; empty where it does."""
    if rule.kind != case.kind:
        return f"it is about {KINDS[rule.kind]}"
    if rule.analyst not in (None, case.analyst) or rule.role not in (None, case.role):
        return f"it is about {rule.who}"
    if rule.dataset is not None and (
        rule.dataset not in case.datasets if rule.verdict != "allow" else set(case.datasets) != {rule.dataset}
    ):
        return f"it is about {rule.dataset}" + (" alone" if rule.dataset in case.datasets else "")
    return _about(rule, case, past) or _when(rule, case, past) or _results(rule, case)


_BETWEEN = {"share": "with", "move": "to", "receive": "from"}
KINDS = {"dp": "questions", "code": "code", "share": "sharing", "move": "moving values", "receive": "receiving values"}


def _about(rule: Rule, case: Case, past: Past) -> str:
    if rule.kind in _BETWEEN:
        named, asked = set(rule.partners or ()), set(case.partners)
        fits = rule.partners is None or (asked <= named if rule.verdict == "allow" else bool(asked & named))
        return "" if fits else f"it is about {KINDS[rule.kind]} {_BETWEEN[rule.kind]} {' and '.join(rule.partners or ())}"
    if rule.kind == "dp":
        over = rule.epsilon_micro is not None and (case.cost.epsilon > rule.epsilon_micro) == (rule.verdict == "allow")
        return f"it is about questions at ε {'≤' if rule.verdict == 'allow' else '>'} {plain(rule.epsilon_micro)} each" \
            if over and rule.epsilon_micro is not None else ""  # fmt: skip
    if rule.digest is not None and rule.digest != case.digest:
        return "it is about other code"
    if rule.same and not past.agreed(case.digest, case.analyst, case.time):
        return "nobody approved exactly this for this analyst before"
    if rule.template is not None and rule.template != case.template:
        return "it is about other code"
    if rule.template is not None:
        for name, value in case.params.items():
            if name not in rule.params:
                return f"it approves no values of {name}"
            if not _within(value, rule.params[name]):
                return f"{name} = {value!r} is not {_range(rule.params[name])}"
    return ""


def _when(rule: Rule, case: Case, past: Past) -> str:
    if rule.expires is not None and case.time >= datetime.fromisoformat(rule.expires):
        return f"it expired on {rule.expires[:16]}"
    if rule.window is not None and not rule.window.holds(case.time):
        return f"it holds at {rule.window}"
    if rule.times is not None and rule.verdict == "allow":
        since = None if rule.per is None else case.time - timedelta(seconds=rule.per)
        if past.uses(rule.id, since) >= rule.times:
            return f"it is used up: {rule.times} times" + (f" in {_span(rule.per)}" if rule.per else "")
    return ""


def _results(rule: Rule, case: Case) -> str:
    if rule.kind != "code" or rule.verdict != "allow":
        return ""
    if case.filtered and rule.digest is None and not rule.same:
        return "code on chosen rows runs by its own digest only"
    return rule.outputs.judge_mock(case.observed) if rule.outputs is not None else ""


def _within(value: Value, allowed: Mapping[str, Any]) -> bool:
    if "values" in allowed:
        return any(type(value) is type(a) and value == a for a in allowed["values"])
    low, high = allowed["low"], allowed["high"]
    whole = type(low) is int and type(high) is int
    return type(value) in ((int,) if whole else (int, float)) and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type]


def _range(allowed: Mapping[str, Any]) -> str:
    if "values" in allowed:
        return "in " + ", ".join(map(repr, allowed["values"]))
    return f"from {allowed['low']} to {allowed['high']}"


def _span(seconds: float | None) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds is not None and seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
