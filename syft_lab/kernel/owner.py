"""The owner's notebook: `Owner`, which hosts datasets in this kernel and keeps everything in one state folder."""

from __future__ import annotations

import atexit
import hashlib
import hmac
import os
import secrets
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from syft_lab import __version__, state
from syft_lab.budget.accountant import MICRO, Budget, Cost
from syft_lab.errors import InvitationError, StateError, UsageError
from syft_lab.identity import Invitation, Keys, check_name, expiry, read_secret, write_secret
from syft_lab.kernel import store as tables
from syft_lab.kernel.audit import Audit
from syft_lab.kernel.catalogue import Catalogue, Dataset
from syft_lab.kernel.console import Card, Console
from syft_lab.kernel.desk import Desk, environment
from syft_lab.kernel.executor import levels
from syft_lab.kernel.executor.supervisor import Executor, Limits
from syft_lab.kernel.inbox import Requests, manage
from syft_lab.kernel.journal import Journal
from syft_lab.kernel.ledger import Balance, Ledger
from syft_lab.kernel.panels import Panels
from syft_lab.kernel.registry import ROLES, Registry
from syft_lab.kernel.rulebook import Policy
from syft_lab.kernel.runs import Runs
from syft_lab.kernel.service import Service
from syft_lab.kernel.store import Store, Terms
from syft_lab.schema import Scalar, schema_to_json
from syft_lab.widgets import cards

DEFAULT_HOST = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "*", "::")  # noqa: S104 - to tell them from addresses that somebody can dial


class Owner:
    """A data owner, hosting in this process. Make it with `Owner.start` (or `%owner start NAME`); end it with `stop`."""

    def __init__(self, name: str, folder: Path, listen: str | None, advertise: str | None) -> None:
        self.name = name
        self._panels = Panels(self)
        self.console = Console(self._summary, self._panels.console)
        self.console.on_change.append(self._panels.touch)
        self._folder = folder
        self._pid = os.getpid()
        self._lock = state.lock(folder, f"the owner {name}")
        try:
            self._open(listen, advertise)
        except BaseException:
            self._lock.release()
            raise

    @classmethod
    def start(cls, name: str, listen: str | None = None, advertise: str | None = None) -> Owner:
        """Host as ``name``; brings back everything that was there before.

        ``listen`` is ``host:port`` (default: loopback, and the port of the last time). ``advertise`` is the address
        that invitations give, where it differs. Raises StateError if another process hosts this owner.
        """
        check_name(name, "the owner's name")
        owner = cls(name, state.make_private(state.owner_folder(name)), listen, advertise)
        atexit.register(owner.stop)
        return owner

    def _open(self, listen: str | None, advertise: str | None) -> None:
        self.keys = Keys.load_or_create(self._folder / "keys.json")
        self._journal = Journal(self._folder / "journal.sqlite", self.keys)
        if not len(self._journal):
            body = {"owner": self.name, "signing": self.keys.public.signing, "software": f"syft-lab {__version__}"}
            self._journal.append("opened", body)
        self._store = Store(self._folder / "tables")
        self._registry = Registry(self._journal, Keys.load_or_create(self._folder / "terminal.json").public.curve)
        self._catalogue = Catalogue(self._journal)
        self._ledger = Ledger(self._journal)
        self._desk = Desk(self._journal, self._catalogue, self._folder / "requests")
        self.requests = Requests(self._desk)
        self._executor = Executor(levels.probe())
        self._runs = Runs(self._desk, self._executor, self._catalogue, self._store, self._registry, self.console.say)
        self.policy = Policy(self._journal, self._catalogue, self.console.say)
        self.audit = Audit(self._journal, self._folder, self.keys.public, self._catalogue, self._store)
        self._recover()
        self._service = self._make_service()
        self._listen(listen, advertise)
        self._desk.on_change.append(lambda _: self.console.refresh())
        self._runs.resume()

    def _make_service(self) -> Service:
        service = Service(
            self.name,
            self.keys,
            self._journal,
            self._registry,
            self._store,
            self._desk,
            self._executor.level.label,
            self.console.say,
        )
        service.next_keys = self._next_keys()
        service.manager = lambda action: manage(self.requests, action)
        return service

    def warm(self) -> None:
        """Boot what runs approved code now, in the background, so that the first cell need not wait three seconds for it."""

        def boot() -> None:
            try:
                self._executor.warm()
            except StateError as error:
                if self.running:
                    self.console.say(str(error))

        if self._executor.level.name != "L0":
            threading.Thread(target=boot, name="syft-warm", daemon=True).start()

    @property
    def isolation(self) -> str:
        """The walls around approved code on this machine, as probed at the start: L3, L2, L1 or L0, in words."""
        return str(self._executor.level)

    @property
    def environment(self) -> dict[str, str]:
        """Versions of what approved code can import."""
        return environment()

    @property
    def limits(self) -> Limits:
        """What one run may take; set it to another: ``owner.limits = replace(owner.limits, wall=60)``."""
        return self._runs.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        if not isinstance(limits, Limits):
            raise UsageError("limits are a lab.Limits, such as lab.Limits(wall=60, memory=2 << 30)")
        self._runs.limits = limits

    def _recover(self) -> None:
        cut = self._desk.settle_interrupted()
        if cut:
            self.console.say(f"{cut} runs of approved code were cut off when the kernel stopped; nothing of them left")
        interrupted = self._ledger.settle_interrupted()
        if interrupted:
            self.console.say(f"{interrupted} questions were cut off when the kernel stopped; their cost counts as spent")
        for dataset in self._catalogue.live():
            if not dataset.meta["persist"]:
                self._journal.append("withdrawn", {"dataset": dataset.name, "version": dataset.version})
                self.console.say(f"{dataset.name} was kept in memory only and is gone; publish it again")
        self._store.remove_others({d.meta["file"] for d in self._catalogue.live()})

    def _listen(self, listen: str | None, advertise: str | None) -> None:
        path = self._folder / "settings.json"
        saved = read_secret(path) if path.exists() else {}
        host, port = _address(listen or saved.get("listen") or f"{DEFAULT_HOST}:0", "listen")
        if host in EVERYWHERE and not (advertise or saved.get("advertise")):
            self._journal.close()
            raise UsageError(f"{host} means every address: say with --advertise host:port which one analysts should use")
        try:
            bound = self._service.start(host, port)
        except BaseException:
            self._journal.close()
            raise
        self.address = advertise or saved.get("advertise") or f"{host}:{bound}"
        if advertise is None and listen is not None:
            self.address = f"{host}:{bound}"
        _address(self.address, "advertise")
        kept = {"listen": f"{host}:{bound}", "advertise": None if self.address == f"{host}:{bound}" else self.address}
        write_secret(path, kept)

    @property
    def running(self) -> bool:
        """Whether this owner answers analysts."""
        return self._lock.is_locked

    def stop(self) -> None:
        """Answer what is in hand, then close; everything stays in the state folder. Idempotent."""
        if not self.running or os.getpid() != self._pid:  # a forked child shares the lock, and must not free it
            return
        self._runs.stop()
        self._service.stop()
        self._journal.close()
        self._store.close()
        self._lock.release()
        atexit.unregister(self.stop)
        self.console.say("stopped")

    # Datasets

    def publish(
        self,
        data: Any,
        name: str,
        *,
        description: str = "",
        tags: Sequence[str] = (),
        population: str | None = None,
        privacy_unit: str,
        max_contributions: int = 1,
        bounds: Mapping[str, tuple[float, float]] | tuple[float, float] | None = None,
        categories: Mapping[str, Sequence[Scalar]] | None = None,
        rows_public: bool = False,
        max_rows: int = tables.MAX_ROWS,
        budget: Budget | None = None,
        mock: Any = "generate",
        persist: bool = True,
    ) -> Card:
        """Let analysts ask differentially private questions about a table, and file code about a table or a tensor.

        ``data``: a pandas or polars DataFrame, the path of a Parquet file or folder, or a torch tensor or numpy array
        (whose shape is public, ``rows_public=True``, and whose ``bounds`` are one pair). ``population``: who the data
        are about (default: the dataset's name); all datasets about the same people share one budget.
        ``privacy_unit``: the id column of the people to protect, or "row". ``max_contributions``: rows one person may
        have; more are dropped now. ``bounds``: (low, high) of numeric columns. ``categories``: the values to group by.
        ``rows_public``: whether the number of rows may be known. ``max_rows``: a public bound on it, a constant you
        choose. ``budget``: for a new population, over all analysts together. ``mock``: "generate", or made-up rows.
        ``persist=False`` keeps the table in memory only.

        Publishing the same again is a no-op. Raises UsageError that names the setting at fault.
        """
        self._check_running()
        check_name(name, "the dataset's name")
        population = check_name(population or name, "the population's name")
        terms = Terms(privacy_unit, max_contributions, _bounds(bounds), dict(categories or {}), max_rows)
        cap = self._budget_for(population, budget)
        prepared = tables.prepare(data, terms, mock)
        if prepared.tensor is not None and not rows_public:
            raise UsageError("the shape of a tensor is public, and so its number of rows: say so with rows_public=True")
        meta: dict[str, Any] = {
            "description": str(description)[:1000],
            "tags": [str(t)[:100] for t in tags],
            "privacy_unit": privacy_unit,
            "schema": schema_to_json(prepared.schema),
            "rows": prepared.rows if rows_public else None,
            "persist": bool(persist),
            **({"tensor": prepared.tensor} if prepared.tensor else {}),
        }
        old = next((d for d in self._catalogue.live() if d.name == name), None)
        version = 1 + max((d.version for d in self._catalogue.all() if d.name == name), default=0)
        kept = self._store.put(name, version, prepared, persist)
        if old is not None:
            self._store.remove(kept["file"])
            if old.population == population and old.meta["digest"] == kept["digest"] and meta.items() <= old.meta.items():
                return self._published(old, prepared, "is published already, unchanged")
            raise UsageError(f"{name} is published already, and this differs: owner.withdraw({name!r}) first")
        salt = secrets.token_bytes(32)
        meta |= {
            **kept,
            "salt": salt.hex(),
            "commitment": hmac.new(salt, bytes.fromhex(kept["digest"]), hashlib.sha256).hexdigest(),
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        body = {"dataset": name, "version": version, "population": population, "new_population": cap, "meta": meta}
        self._journal.append("published", body)
        dataset = next(d for d in self._catalogue.live() if d.name == name)
        self.console.say(f"published {name} v{version} about {population}")
        return self._published(dataset, prepared, "is published")

    def _budget_for(self, population: str, budget: Budget | None) -> dict[str, int] | None:
        """The cap of a population that is new; None for one that exists."""
        if budget is not None and not isinstance(budget, Budget):
            raise UsageError("budget must be a lab.Budget, such as lab.Budget(epsilon=3.0, delta=1e-6)")
        if population not in self._ledger.populations():
            if budget is None:
                raise UsageError(f"{population} is a new population: give it a budget, such as budget=lab.Budget(epsilon=3.0)")
            return budget.cap.to_json()
        cap = self._ledger.population(population).cap
        if budget is not None and budget.cap != cap:
            raise UsageError(f"the population {population} has a budget of {cap} already; only owner.top_up changes it")
        return None

    def _published(self, dataset: Dataset, prepared: tables.Prepared, what: str) -> Card:
        pairs: list[tuple[str, object]] = [
            ("population", f"{dataset.population}, {self._ledger.population(dataset.population).cap}"),
            ("protects", "each row (a person with several rows is not protected as a person)" if dataset.unit == "row" else
             f"each {dataset.unit}, with up to {prepared.schema.max_contributions} rows"),
            ("columns", ", ".join(c.name for c in prepared.schema.columns)) if prepared.tensor is None else
            ("tensor", f"{prepared.tensor['dtype']} {tuple(prepared.tensor['shape'])}, for %%remote cells"),
            ("kept", "in the state folder, readable by you only" if dataset.meta["persist"] else "in memory only"),
        ]  # fmt: skip
        if prepared.dropped:
            pairs.append(("dropped", f"{prepared.dropped} rows without an id, or beyond the contributions (only you see this)"))
        if prepared.skipped:
            pairs.append(("left out", f"{', '.join(prepared.skipped)}: types that can't be queried yet"))
        units = {d.unit == "row" for d in self._catalogue.live() if d.population == dataset.population}
        warning = (
            f"some datasets about {dataset.population} protect rows, others people: its budget bounds what is learned of a "
            "person only through those that protect people"
        )
        return Card(f"{dataset.name} v{dataset.version} {what}", pairs, warning=warning if len(units) > 1 else "")

    def withdraw(self, name: str) -> None:
        """Stop answering about a dataset and delete its stored table. Answers given before keep their version."""
        self._check_running()
        for dataset in self._catalogue.live():
            if dataset.name == name:
                self._journal.append("withdrawn", {"dataset": name, "version": dataset.version})
                self._store.remove(dataset.meta["file"])
                self.console.say(f"withdrew {name} v{dataset.version}")
                return
        raise UsageError(f"no dataset {ascii(name)[:80]} is published")

    @property
    def datasets(self) -> list[str]:
        """Names of the published datasets."""
        return [d.name for d in self._catalogue.live()]

    # People

    def invite(
        self,
        analyst: str,
        *,
        budgets: Mapping[str, float | Budget] | None = None,
        datasets: Sequence[str] | None = None,
        role: str = "analyst",
        expires: str = "7d",
        path: str | Path | None = None,
    ) -> Card:
        """Write an invitation file (0600) that lets one person enrol once; hand it over as you would a key.

        ``budgets``: ε by population (with the population's δ), or a Budget. ``datasets``: names, all published ones by
        default. ``role``: "analyst", or "guest" (mocks only). ``path``: where to write, ``<analyst>.syft`` by default.
        Inviting again with the same terms, while the file is there, gives the same invitation, used or not; so a notebook
        can be run again. For a new one, take the file away. A second invitation for the same person, once used,
        replaces their keys, role and datasets; it can raise their budget, and never gives back what was spent.
        """
        self._check_running()
        check_name(analyst, "the analyst's name")
        if role not in ROLES:
            raise UsageError(f"role must be one of {', '.join(ROLES)}; it is {ascii(role)[:40]}")
        names = list(self.datasets if datasets is None else datasets)
        for name in names:
            if name not in self.datasets:
                raise UsageError(
                    f"no dataset {ascii(name)[:80]} is published; published are: {', '.join(self.datasets) or 'none'}"
                )
        caps = {p: self._account_cap(p, amount).to_json() for p, amount in (budgets or {}).items()}
        target = Path(path or f"{analyst}.syft")
        terms = {"analyst": analyst, "role": role, "datasets": names, "budgets": caps}
        invitation = self._same_invitation(target, terms)
        if invitation is None:
            one_time = Keys.generate()
            invitation = Invitation(
                owner=self.name, curve=self.keys.public.curve, signing=self.keys.public.signing, addresses=(self.address,),
                analyst=analyst, role=role, expires=expiry(expires), secret=one_time.curve_secret,
            ).signed_by(self.keys)  # fmt: skip
            self._journal.append("invited", {**terms, "invitation": invitation.id, "expires": invitation.expires})
            self._registry.reload()
            invitation.write(target)
            self.console.say(f"invited {analyst} as {role}")
        used = invitation.id in {i.id for i in self._registry.invitations if i.state == "used"}
        pairs: list[tuple[str, object]] = [
            ("address", f"{self.address} (this machine only)" if self.address.startswith(DEFAULT_HOST) else self.address),
            ("file", f"{target.name}: hand it over on a safe way; whoever has it first can enrol, once"),
            ("open to", ", ".join(names) or "nothing yet"),
            ("budgets", "; ".join(f"{p}: {Cost(c['epsilon_micro'], c['delta_pico'])}" for p, c in caps.items()) or "none"),
            ("expires", invitation.expires),
            ("your fingerprint", self.keys.public.fingerprint),
        ]
        return Card(
            f"Invitation for {analyst}{', who has enrolled with it' if used else ''}",
            pairs,
            qr=f"syft-lab owner {self.name} {self.keys.public.fingerprint}",
        )

    def _account_cap(self, population: str, amount: float | Budget) -> Cost:
        if population not in self._ledger.populations():
            raise UsageError(f"there is no population {ascii(population)[:80]}; publish a dataset about it first")
        if isinstance(amount, Budget):
            return amount.cap
        return Cost(Budget(amount).cap.epsilon, self._ledger.population(population).cap.delta)

    def _same_invitation(self, target: Path, terms: Mapping[str, Any]) -> Invitation | None:
        if not target.exists():
            return None
        try:
            found = Invitation.read(target)
        except InvitationError:
            raise UsageError(f"{target.name} exists and is no invitation; choose another place with path=…") from None
        for entry in self._journal.entries():
            if entry.kind == "invited" and entry.body["invitation"] == found.id:
                (state,) = (i.state for i in self._registry.invitations if i.id == found.id)
                unchanged = all(entry.body[k] == v for k, v in terms.items()) and found.addresses == (self.address,)
                usable = state == "open" and not found.expired
                in_use = state == "used" and found.analyst in self.enrolled
                if unchanged and (usable or in_use):
                    return found
        return None

    @property
    def enrolled(self) -> list[str]:
        """Names of the analysts who may ask now."""
        return [a.name for a in self._registry.analysts]

    def revoke(self, analyst: str) -> None:
        """End an analyst's access and open invitations at once, in live connections too. What was spent stays spent."""
        self._check_running()
        known = {a.name for a in self._registry.analysts} | {i.analyst for i in self._registry.invitations if i.state == "open"}
        if analyst not in known:
            raise UsageError(
                f"{ascii(analyst)[:80]} has no access to revoke; with access: {', '.join(sorted(known)) or 'nobody'}"
            )
        self._journal.append("revoked", {"analyst": analyst})
        self._registry.reload()
        self.console.say(f"revoked {analyst}")

    def top_up(self, population: str, epsilon: float, delta: float = 0.0, *, analyst: str | None = None) -> Card:
        """Raise the budget of a population, or of one analyst in it, by ε (and δ). Journaled; it can't be taken back."""
        self._check_running()
        if population not in self._ledger.populations():
            raise UsageError(f"there is no population {ascii(population)[:80]}")
        if analyst is not None and analyst not in {a.name for a in self._registry.analysts}:
            raise UsageError(f"{ascii(analyst)[:80]} is no enrolled analyst")
        self._journal.append(
            "topped_up", {"population": population, "analyst": analyst, **Budget(epsilon, delta).cap.to_json()}
        )
        self.console.say(f"topped up {population} by ε = {epsilon:g}" + (f" for {analyst}" if analyst else ""))
        return self.budgets

    @property
    def budgets(self) -> Card:
        """Gauges of all populations, and of every analyst in them."""
        gauges = [replace(g, note=cards.exact_releases(exact)) for g, exact in self.gauges()]
        return Card(f"Budgets at {self.name}", [], gauges=gauges)

    # Keys and recovery

    def rotate_keys(self, *, activate: bool = False) -> Card:
        """Change the key of the wire, in two steps. First announce: analysts that connect learn the next key.

        Then, with ``activate=True``, stop, switch and start with it; analysts that did not connect in between need a
        new invitation. The signing key, and so the fingerprint, stays.
        """
        self._check_running()
        path = self._folder / "next-keys.json"
        if not activate:
            if not path.exists():
                self.keys.with_new_curve().save(path)
            self._service.next_keys = self._next_keys()
            self._journal.append("owner_key", {"step": "announced", "curve": Keys.load(path).public.curve})
            return Card(
                "A new key is announced", [("next", "owner.rotate_keys(activate=True), once your analysts have connected")]
            )
        if not path.exists():
            raise UsageError("announce the new key first: owner.rotate_keys()")
        keys = Keys.load(path)
        self._journal.append("owner_key", {"step": "activated", "curve": keys.public.curve})
        self._service.stop()
        shutil.copy2(self._folder / "keys.json", self._folder / "old-keys.json")
        path.replace(self._folder / "keys.json")
        self.keys = keys
        self._service = self._make_service()
        self._listen(None, None)
        return Card("The new key is in use", [("fingerprint", f"{keys.public.fingerprint} (unchanged)")])

    def _next_keys(self) -> Keys | None:
        path = self._folder / "next-keys.json"
        return Keys.load(path) if path.exists() else None

    @property
    def suspended(self) -> bool:
        """Whether an older journal was noticed, so that nothing is released until `confirm_restore`."""
        return bool(self._journal.read("SELECT 1 FROM settings WHERE name = 'suspended'"))

    def confirm_restore(self, lost: Mapping[str, float] | None = None) -> Card:
        """Confirm that an old copy of the state folder was restored, and go on; journaled.

        What was spent in the lost part is gone from the journal, but not from the world: ``lost`` names the ε spent
        there by population. For a population that it leaves out, all that was left counts as spent.
        """
        self._check_running()
        if not self.suspended:
            raise UsageError("there is nothing to confirm: no analyst holds a newer head than this journal")
        amounts = {}
        for population in self._ledger.populations():
            left = self._ledger.population(population).left
            said = (lost or {}).get(population)
            spent = left if said is None else Cost(0) if said == 0 else Budget(said).cap
            amounts[population] = Cost(min(spent.epsilon, left.epsilon), min(spent.delta, left.delta)).to_json()
        unknown = set(lost or {}) - set(amounts)
        if unknown:
            raise UsageError(f"there is no population {ascii(sorted(unknown)[0])[:80]}")
        heads = [e.body["head"] for e in self._journal.entries() if e.kind == "suspended"]
        self._journal.append("restored", {"heads": heads, "lost": amounts})
        self.console.say("the restored journal was confirmed; questions are answered again")
        return self.budgets

    # Display

    def _check_running(self) -> None:
        if not self.running:
            raise StateError(f"the owner {self.name} is stopped; run %owner start {self.name}")

    def _summary(self) -> Card:
        if not self.running:
            return Card(f"Owner {self.name}: stopped", [("start again", f"%owner start {self.name}")])
        analysts = ", ".join(f"{a.name} ({a.role})" for a in self._registry.analysts) or "none yet: owner.invite(…)"
        pairs: list[tuple[str, object]] = [
            ("address", self.address),
            ("fingerprint", self.keys.public.fingerprint),
            ("isolation", f"approved code: {self.isolation}; DP questions run in this kernel"),
            ("device", "CPU (tables run on polars)"),
            ("datasets", ", ".join(f"{d.name} v{d.version}" for d in self._catalogue.live()) or "none yet: owner.publish(…)"),
            ("analysts", analysts),
            ("requests", self._waiting()),
            ("policy", "; ".join(map(str, self.policy.rules)) or "nothing runs yet: owner.policy.allow(…)"),
            ("journal", f"{len(self._journal)} entries"),
        ]
        warning = "An old copy of the state folder was restored: nothing is released until owner.confirm_restore()"
        gauges = self.budgets.gauges
        return Card(f"Owner {self.name}: running", pairs, gauges=gauges, warning=warning if self.suspended else "")

    @property
    def inbox(self) -> Any:
        """The approval widget: what analysts ask, live; its buttons answer also while a cell runs."""
        return self._panels.inbox()

    @property
    def gauge(self) -> Any:
        """Dials of all budgets, live: spent, reserved, left, and exact releases."""
        return self._panels.gauge()

    def gauges(self) -> list[tuple[cards.Gauge, int]]:
        """Every population's budget and every analyst's account in it, each with its number of exact releases."""
        found = []
        for population in self._ledger.populations():
            exact = self._ledger.exact(population)
            found.append((_gauge(f"{population}, all analysts", self._ledger.population(population)), exact))
            for (analyst,) in self._journal.read(
                "SELECT analyst FROM accounts WHERE population = ? ORDER BY analyst", population
            ):
                exact = self._ledger.exact(population, analyst)
                found.append((_gauge(f"{population}, {analyst}", self._ledger.account(analyst, population)), exact))
        return found

    def _waiting(self) -> str:
        states = [r.state for r in self._desk.rows()]
        told = [("filed", "wait for you"), ("review", "await your release"), ("running", "running"), ("approved", "queued")]
        counts = [f"{states.count(state)} {words}" for state, words in told if state in states]
        return ", ".join(counts) + (": owner.inbox" if counts else "none open")

    def __repr__(self) -> str:
        return repr(self._summary())

    def _repr_html_(self) -> str:
        return self._summary()._repr_html_()


def _bounds(bounds: Any) -> Any:
    """As given: by column for a table, one pair for a tensor."""
    return tuple(bounds) if isinstance(bounds, tuple | list) else dict(bounds or {})


def _gauge(label: str, balance: Balance) -> cards.Gauge:
    cap, spent, reserved = (c.epsilon / MICRO for c in (balance.cap, balance.spent, balance.reserved))
    return cards.Gauge(label, cap, spent, reserved)


def _address(text: str, setting: str) -> tuple[str, int]:
    host, colon, port = str(text).rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--{setting} {ascii(text)[:80]}: write host:port, such as 0.0.0.0:7000")
    return host, int(port)
