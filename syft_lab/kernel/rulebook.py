"""The owner's rules: `Rulebook` keeps them and decides by them; `Policy` is ``owner.policy``, which people use."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from syft_lab import canonical
from syft_lab.budget.accountant import Budget
from syft_lab.errors import UsageError
from syft_lab.identity import check_name, seconds_of
from syft_lab.kernel.catalogue import Catalogue
from syft_lab.kernel.history import KINDS, History
from syft_lab.kernel.journal import Entry, Journal
from syft_lab.kernel.outputs import Outputs
from syft_lab.kernel.policy import KINDS as ABOUT
from syft_lab.kernel.policy import VERDICTS, Allow, Ask, Case, Decision, Rule, decide, judge
from syft_lab.kernel.roles import ROLES
from syft_lab.kernel.terms import bounds, from_toml, to_toml, window
from syft_lab.printable import printable, printed
from syft_lab.widgets import cards

if TYPE_CHECKING:
    from syft_lab.kernel.requests.inbox import Request

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LAST = 100


class Rulebook:
    """The rules in force and what they may know of the past, both in memory and as new as the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.history = History(journal.of_kinds(*KINDS))
        self.rules = self._read()
        journal.on_append.append(self._hear)

    def _read(self) -> list[Rule]:
        found = self._journal.read("SELECT id, rule FROM rules ORDER BY id")
        return [Rule.from_json(id, canonical.loads(rule)) for id, rule in found]

    def _hear(self, entry: Entry) -> None:
        self.history.add(entry)
        if entry.kind in ("allowed", "disallowed"):
            self.rules = self._read()

    def decide(self, case: Case, last: int | None = None) -> Decision:
        """What happens to a case now; rules that allow count up to number ``last``: those there were when it was filed."""
        rules = [r for r in self.rules if last is None or r.verdict != "allow" or r.id <= last]
        return decide(rules, case, self.history)

    def next_id(self) -> int:
        """A number that no rule ever had."""
        return 1 + self.history.last_rule


class Shown:
    """A table of texts that shows itself as text or HTML; ``frame()`` gives it to pandas."""

    def __init__(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
        self.title, self.head, self.rows, self.empty = title, tuple(head), [tuple(r) for r in rows], empty

    def frame(self) -> Any:
        """As a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.head))

    def __len__(self) -> int:
        return len(self.rows)

    @printed
    def __repr__(self) -> str:
        if not self.rows:
            return f"{self.title}\n  {self.empty}"
        shown = [tuple(map(printable, row)) for row in (self.head, *self.rows)]
        widths = [max(len(row[i]) for row in shown) for i in range(len(self.head))]
        return "\n".join([self.title, *("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
                                        for row in shown)])  # fmt: skip

    def _repr_html_(self) -> str:
        return cards.card(self.title, cards.table(self.head, self.rows, self.empty))


class Policy:
    """What happens without a click: ``owner.policy``. By default questions are refused, and code waits for a person."""

    def __init__(
        self, rulebook: Rulebook, journal: Journal, catalogue: Catalogue, case_of: Callable[[Request], Case],
        requests: Callable[[], Sequence[Request]], notify: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._book, self._journal, self._catalogue = rulebook, journal, catalogue
        self._case_of, self._requests, self._notify = case_of, requests, notify

    @property
    def rules(self) -> list[Rule]:
        """The rules in force."""
        return list(self._book.rules)

    def allow(
        self,
        kind: str,
        *,
        dataset: str | None = None,
        epsilon_per_query: float | None = None,
        analyst: str | None = None,
        role: str | None = None,
        digest: str | None = None,
        like: Request | str | None = None,
        same: bool = False,
        params: Mapping[str, Any] | None = None,
        times: int | None = None,
        per: str | None = None,
        hours: str | None = None,
        days: str | Sequence[str] | None = None,
        zone: str = "UTC",
        expires: str | None = None,
        review: bool = True,
        outputs: Outputs | Mapping[str, Any] | None = None,
        partners: Sequence[str] | None = None,
    ) -> Rule:
        """Let something run without a click.

        ``allow("dp", dataset=…, epsilon_per_query=…)``: DP questions about a dataset, at up to this ε each.
        ``allow("code", …)`` with one of: ``digest=request.digest``, exactly this (code, inputs, data version, outputs,
        parameters, environment), once unless ``times`` says more; ``same=True``, what people approved for the same analyst
        before, unchanged; ``like=request, params={"age": (18, 90), "ward": ["er", "icu"]}``, the same code with other values
        in these bounds or lists (other parameters stay as they are) and with later versions of its datasets. Every run counts.
        ``allow("share", dataset=…)``: split a dataset in federations that you accepted, also one that was not open to the
        analyst then; with these ``partners`` and no others, or with whoever is in the federation. ``allow("move", dataset=…,
        partners=["hospital-b"])``: hand values of a dataset to a partner, who will see them; there, ``allow("receive",
        partners=["hospital-a"])`` takes them in.

        For ``analyst`` (default: everybody, or everybody in a ``role``). ``times`` runs, in all or ``per`` "1d", "2h" or
        "30min"; ``hours`` "08:00-18:00", ``days`` "mon-fri" or a list, in time ``zone``; until ``expires`` ("30d").
        ``outputs=lab.Outputs(…)``: only results of this form, judged on the mock before it runs, and on the result before it
        leaves: one that does not fit waits for you. ``review=False``: results leave without you having seen them.
        """
        if kind == "dp" and (dataset is None or epsilon_per_query is None):
            raise UsageError('say which questions: owner.policy.allow("dp", dataset="patients", epsilon_per_query=0.2)')
        if kind == "code" and sum((digest is not None, like is not None, bool(same))) != 1:
            raise UsageError(
                "say which code, in one way: digest=request.digest, like=request with params={…}, or same=True for what was "
                "approved before"
            )
        if kind in ("share", "move") and dataset is None:
            raise UsageError(f'say what: owner.policy.allow("{kind}", dataset="ages", partners=["hospital-b"])')
        if kind in ("move", "receive") and not partners:
            raise UsageError(f'say which partners: owner.policy.allow("{kind}", partners=["hospital-b"])')
        if kind == "code" and digest is not None and analyst is None:
            raise UsageError('say whose code: owner.policy.allow("code", analyst="alice", digest=request.digest, times=5)')
        terms: dict[str, Any] = {"verdict": "allow", "kind": kind, "dataset": dataset, "analyst": analyst, "role": role}
        terms |= {"epsilon_micro": None if epsilon_per_query is None else Budget(epsilon_per_query).cap.epsilon}
        terms |= {"digest": digest, "same": bool(same), "review": bool(review), "outputs": outputs}
        terms |= {"times": 1 if digest is not None and times is None else times, "per": per, "expires": expires}
        terms |= {"window": window(hours, days, zone), "partners": partners}
        terms |= self._like(like, params)
        return self._add(terms)

    def ask(self, kind: str = "code", **conditions: Any) -> Rule:
        """Have a person decide about code, whatever else allows it; by ``analyst``, ``role``, ``dataset``, ``hours``…"""
        return self._strict("ask", kind, "", **conditions)

    def refuse(self, kind: str, *, why: str = "", **conditions: Any) -> Rule:
        """Refuse questions, code or sharing, whatever else allows it: by ``analyst``, ``role``, ``dataset``, ``hours``…

        ``why`` reaches the analyst. For questions, ``above=0.5`` refuses those that cost more ε than that; for sharing,
        ``partners=["bank-c"]`` refuses federations with any of these.
        """
        return self._strict("refuse", kind, why, **conditions)

    def _strict(
        self, verdict: str, kind: str, why: str, *, analyst: str | None = None, role: str | None = None,
        dataset: str | None = None, hours: str | None = None, days: str | Sequence[str] | None = None, zone: str = "UTC",
        expires: str | None = None, above: float | None = None, partners: Sequence[str] | None = None,
    ) -> Rule:  # fmt: skip
        return self._add({
            "verdict": verdict, "kind": kind, "why": why, "analyst": analyst, "role": role, "dataset": dataset,
            "expires": expires, "window": window(hours, days, zone), "partners": partners,
            "epsilon_micro": None if above is None else Budget(above).cap.epsilon,
        })  # fmt: skip

    def _like(self, like: Request | str | None, params: Mapping[str, Any] | None) -> dict[str, Any]:
        if like is None:
            if params is not None:
                raise UsageError("params are bounds for code like a request: like=request, params={…}")
            return {}
        if isinstance(like, str):
            return {"template": like, "params": {k: bounds(k, v) for k, v in (params or {}).items()}}
        fixed: dict[str, Any] = {k: {"values": [v]} for k, v in like.params.items()}
        unknown = set(params or {}) - set(fixed)
        if unknown:
            raise UsageError(f"request {like.number} has no parameter {ascii(sorted(unknown)[0])[:60]}; it has: "
                             f"{', '.join(fixed) or 'none'}")  # fmt: skip
        return {"template": like.template, "params": {**fixed, **{k: bounds(k, v) for k, v in (params or {}).items()}}}

    def _add(self, terms: Mapping[str, Any]) -> Rule:
        return self._keep(self._checked(terms))

    def _keep(self, made: Rule) -> Rule:
        for rule in self.rules:
            if rule.to_json() == made.to_json():
                return rule
        added = replace(made, id=self._book.next_id())
        self._journal.append("allowed", {"rule": added.id, "terms": added.to_json()})
        self._notify(f"{added}")
        return added

    def _checked(self, terms: Mapping[str, Any]) -> Rule:
        """The rule that terms describe, under no number yet; raises UsageError that names what is wrong."""
        made = dict(terms)
        if made.get("kind") not in ABOUT:
            raise UsageError(f"policies are about 'dp' (questions), 'code', and in federations 'share', 'move' and 'receive', "
                             f"not {ascii(made.get('kind'))[:40]}")  # fmt: skip
        if made["kind"] not in ("dp", "code") and (made.get("verdict") == "ask" or made.get("times") is not None):
            raise UsageError("what happens between partners is allowed or refused by rules; what is opened is asked each time")
        if made.get("partners") is not None:
            made["partners"] = self._named(made["kind"], made["partners"])
        if made.get("verdict") not in VERDICTS:
            raise UsageError(f"a rule's verdict is one of {', '.join(VERDICTS)}, not {ascii(made.get('verdict'))[:40]}")
        for name, what in (("analyst", "the analyst's name"), ("role", "the role's name")):
            if made.get(name) is not None:
                check_name(made[name], what)
        if made.get("role") not in (None, *ROLES) and made["role"] not in self._roles():
            raise UsageError(f"there is no role {made['role']}; owner.define_role makes one")
        if made.get("dataset") is not None and made["dataset"] not in {d.name for d in self._catalogue.all()}:
            raise UsageError(f"there is no dataset {ascii(made['dataset'])[:80]}; publish it first")
        for name in ("digest", "template"):
            if made.get(name) is not None and not DIGEST.fullmatch(str(made[name])):
                raise UsageError(f"{name} is that of a request: sha256: and 64 hexadecimal digits")
        times = made.get("times")
        if times is not None and (type(times) is not int or not 1 <= times <= 10**6):
            raise UsageError("times is how often something may run: a whole number from 1 on")
        if isinstance(made.get("per"), str):
            made["per"] = seconds_of(made["per"], "per")
        if made.get("per") is not None and times is None:
            raise UsageError("per goes with times: times=5, per='1d'")
        if isinstance(made.get("expires"), str) and "T" not in made["expires"]:
            end = self._journal.now() + timedelta(seconds=seconds_of(made["expires"], "expires"))
            made["expires"] = end.isoformat(timespec="seconds")
        if isinstance(made.get("outputs"), Mapping):
            made["outputs"] = Outputs.from_json(made["outputs"])
        if made.get("outputs") is not None and (made["kind"] != "code" or not isinstance(made["outputs"], Outputs)):
            raise UsageError("outputs is a lab.Outputs, and goes with code")
        made["why"] = str(made.get("why") or "")[:1000]
        return Rule(0, **made)

    def _named(self, kind: str, partners: Any) -> tuple[str, ...]:
        listed = isinstance(partners, list | tuple) and partners and all(isinstance(p, str) for p in partners)
        if kind in ("dp", "code") or not listed:
            raise UsageError('partners is a list of owners, and goes with share, move and receive: partners=["hospital-b"]')
        return tuple(sorted({check_name(p, "a partner's name") for p in partners}))

    def _roles(self) -> list[str]:
        return [n for (n,) in self._journal.read("SELECT name FROM roles")]

    def remove(self, rule: int | Rule) -> None:
        """Take a rule back, by its number."""
        number = rule if isinstance(rule, int) else rule.id
        if number not in {r.id for r in self.rules}:
            raise UsageError(
                f"there is no rule {ascii(number)[:20]}; rules: {', '.join(str(r.id) for r in self.rules) or 'none'}"
            )
        self._journal.append("disallowed", {"rule": number})
        self._notify(f"rule {number} was taken back")

    # To read, and to write as text

    @property
    def table(self) -> Shown:
        """The rules as a table, with how often each let something run."""
        rows = [
            (str(r.id), r.verdict, r.who, r.what, r.limits,
             "" if r.kind != "code" or r.verdict != "allow" else "you release" if r.review else "leaves unseen",
             str(self._book.history.uses(r.id)))
            for r in self.rules
        ]  # fmt: skip
        head = ("no.", "verdict", "who", "what", "limits", "results", "used")
        return Shown("Policy (the strictest rule that fits decides)", head, rows, NO_RULES)

    @property
    def toml(self) -> str:
        """The rules as TOML, which `load` takes back."""
        text = tomli_w.dumps({"rule": [to_toml(r) for r in self.rules]})
        return "".join(c if c == "\n" or c.isprintable() else f"\\U{ord(c):08x}" for c in text)

    def load(self, source: str | Path) -> list[Rule]:
        """Add the rules of a TOML file, or of TOML text: all of them, or none. Those in force already stay as they are."""
        return [self._keep(rule) for rule in [self._checked(terms) for terms in self._parse(source)]]

    def _parse(self, source: str | Path) -> list[dict[str, Any]]:
        text = str(source)
        if isinstance(source, Path) or (text.endswith(".toml") and "\n" not in text):
            try:
                text = Path(source).read_text()
            except (OSError, UnicodeDecodeError):
                raise UsageError(f"can't read {Path(source).name}") from None
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"this is not TOML: {error}") from None
        entries = found.get("rule", [])
        if set(found) - {"rule"} or not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise UsageError("write each rule as [[rule]], with two brackets, and nothing else")
        return [from_toml(e) for e in entries]

    # To understand

    def explain(self, request: Request) -> Shown:
        """Which rule decided about a request, or would now; and of every other, why it did not fit."""
        case = replace(self._case_of(request), time=self._journal.now())
        found = self._book.decide(case)
        by = getattr(found, "rule", None)
        rows = []
        for rule in self.rules:
            if rule.kind == case.kind:
                why = judge(rule, case, self._book.history)
                said = "decides" if by == rule else why or "fits, and a stricter or an older one decides"
                rows.append((str(rule.id), rule.verdict, f"{rule.who}: {rule.what}", said))
        said = request.decided
        title = f"Request {request.number}: {said + '; ' if said else ''}now the policy says {_words(found)}"
        return Shown(title, ("no.", "verdict", "rule", "here"), rows, "no rule is about code: a person decides")

    def dry_run(self, policy: str | Path | Iterable[Rule] | None = None, last: int = LAST) -> Shown:
        """What this policy (TOML, or rules; default: the one in force) would have decided for the ``last`` requests.

        They are taken in the order they came, each with the uses that this policy would have counted until then.
        """
        if policy is None:
            rules = self.rules
        elif isinstance(policy, str | Path):
            rules = [replace(self._checked(t), id=i) for i, t in enumerate(self._parse(policy), 1)]
        else:
            rules = list(policy)
        history = self._book.history.unused()
        rows = []
        for request in sorted(self._requests(), key=lambda r: r.number)[-last:]:
            case = self._case_of(request)
            found = decide(rules, case, history)
            if isinstance(found, Allow):
                history.use(found.rule.id, case.time)
            rows.append(
                (str(request.number), case.analyst, ", ".join(case.datasets), request.state, request.decided, _words(found))
            )
        head = ("request", "analyst", "reads", "state", "was decided by", "this policy says")
        return Shown(f"What {'the policy in force' if policy is None else 'this policy'} says of the last {len(rows)} requests",
                     head, rows, "no requests yet")  # fmt: skip

    @printed
    def __repr__(self) -> str:
        return "\n".join(map(str, self.rules)) or NO_RULES

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


NO_RULES = "no rules: nothing runs without you. owner.policy.allow(…) adds one"


def _words(found: Decision) -> str:
    if isinstance(found, Allow):
        return f"allow (rule {found.rule.id})"
    by = f" (rule {found.rule.id})" if found.rule is not None else " (no rule allows it)"
    return ("ask" if isinstance(found, Ask) else "refuse") + by
