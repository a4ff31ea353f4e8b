"""The owner's notebook: `Owner`, which hosts datasets in this kernel and keeps everything in one state folder."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from syft_lab import __version__, state
from syft_lab.budget import engine
from syft_lab.budget.accountant import MICRO, Budget, Cost
from syft_lab.errors import StateError, UsageError, VerificationError
from syft_lab.identity import Keys, check_name, read_secret, write_secret
from syft_lab.kernel import machine
from syft_lab.kernel.audit import Audit
from syft_lab.kernel.catalogue import Catalogue, Dataset
from syft_lab.kernel.console import Card, Console
from syft_lab.kernel.executor import levels
from syft_lab.kernel.executor.plans import Host
from syft_lab.kernel.executor.supervisor import Executor, Limits
from syft_lab.kernel.executor.wall import TRY_SECONDS, Wall
from syft_lab.kernel.journal import Journal, verify
from syft_lab.kernel.ledger import Balance, Ledger
from syft_lab.kernel.panels import Panels
from syft_lab.kernel.partners import Partners
from syft_lab.kernel.people import DEFAULT_HOST, People
from syft_lab.kernel.registry import Registry
from syft_lab.kernel.requests.cohorts import Cohorts
from syft_lab.kernel.requests.desk import Desk, environment
from syft_lab.kernel.requests.inbox import Requests, manage
from syft_lab.kernel.requests.rows import UNDECIDED
from syft_lab.kernel.requests.runs import Runs
from syft_lab.kernel.rulebook import Policy, Rulebook
from syft_lab.kernel.service import Service
from syft_lab.kernel.settings import Settings
from syft_lab.kernel.store import Store
from syft_lab.kernel.tensors import Tensors
from syft_lab.kernel.webhook import Webhook
from syft_lab.printable import printed
from syft_lab.widgets import cards

MEMORY_SHARE = 0.8  # of the machine's memory, for all sessions on tensors together
EVERYWHERE = ("0.0.0.0", "*", "::")  # noqa: S104 - to tell them from addresses that somebody can dial


class Owner(People):
    """A data owner, hosting in this process. Make it with `Owner.start` (or `%owner start NAME`); end it with `stop`."""

    def __init__(self, name: str, folder: Path, listen: str | None, advertise: str | None, device: str = "cpu") -> None:
        self.name, self.device = name, device
        self._panels = Panels(self)
        self.console = Console(self._summary, self._panels.console)
        self.console.on_change.append(self._panels.touch)
        self._folder = folder
        self._pid = os.getpid()
        self._lock = state.lock(folder, f"the owner {name}")
        try:
            self._open(listen, advertise)
        except BaseException:
            self._end()  # or it would go on answering, and nobody could stop it
            self._lock.release()
            raise

    @classmethod
    def start(cls, name: str, listen: str | None = None, advertise: str | None = None, device: str = "cpu") -> Owner:
        """Host as ``name``; brings back everything that was there before.

        ``listen`` is ``host:port`` (default: loopback, and the port of the last time). ``advertise`` is the address
        that invitations give, where it differs. ``device`` is where plans on tensors run: "cpu", "cuda" or "cuda:0".
        Raises StateError if another process hosts this owner.
        """
        check_name(name, "the owner's name")
        if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise UsageError(f"device is cpu, cuda, or cuda:0 for one of several; it is {ascii(device)[:40]}")
        owner = cls(name, state.make_private(state.owner_folder(name)), listen, advertise, device)
        atexit.register(owner.stop)
        return owner

    def _open(self, listen: str | None, advertise: str | None) -> None:
        engine.check()
        self.keys = Keys.load_or_create(self._folder / "keys.json")
        self._journal = Journal(self._folder / "journal.sqlite", self.keys)
        if not len(self._journal):
            body = {"owner": self.name, "signing": self.keys.public.signing, "software": f"syft-lab {__version__}"}
            self._journal.append("opened", body)
        self._store = Store(self._folder / "tables")
        self._registry = Registry(self._journal, Keys.load_or_create(self._folder / "terminal.json").public.curve)
        self._catalogue = Catalogue(self._journal)
        self._ledger = Ledger(self._journal)
        self._rulebook = Rulebook(self._journal)
        self._settings = Settings(self._journal)
        self._desk = Desk(self._journal, self._catalogue, self._rulebook, self._settings, self._folder / "requests")
        self._executor = Executor(levels.probe())
        # Bubblewrap hides a GPU's devices, and a plan's child needs the driver's calls: it has a fork server without walls.
        self._planner = self._executor if self.device == "cpu" else Executor(levels.Level("L0", "for plans on a GPU"))
        # Bubblewrap has no network either, which a party of a federation needs.
        apart = self._planner is self._executor and self._executor.level.name == "L3"
        self._party_planner = Executor(levels.Level("L2", "for parties of federations")) if apart else self._planner
        cohorts = Cohorts(self._desk, self._store, self._folder / "cohorts")
        self._runs = Runs(self._desk, self._executor, self._catalogue, self._store, self._registry, cohorts, self._rulebook,
                          self.console.say)  # fmt: skip
        self.requests = Requests(self._desk, self._runs)
        self.policy = Policy(self._rulebook, self._journal, self._catalogue, lambda r: self._desk.case(self._desk.row(r.id)),
                             lambda: self.requests, self.console.say)  # fmt: skip
        self.audit = Audit(self.name, self._journal, self._folder, self.keys.public, self._catalogue, self._store)
        self._webhook = Webhook(self.name, self._folder / "webhook.json", self.console.say)
        self._recover()
        self._tensors = Tensors(self._catalogue, self._store, self._place, self._settings.limits, self._wall(), self._room())
        self._partners = Partners(self.name, self.keys, self._desk, self._catalogue, self._rulebook, self._tensors,
                                  lambda: (self._interface, self.address.rpartition(":")[0]), self._journal.now)  # fmt: skip
        self._service = self._make_service()
        self._listen(listen, advertise)
        self._desk.on_change.append(lambda _: self.console.refresh())
        self._desk.on_change.append(self._webhook.hear)
        self._runs.resume()

    def _make_service(self) -> Service:
        service = Service(
            self.name,
            self.keys,
            self._journal,
            self._registry,
            self._store,
            self._desk,
            self._rulebook,
            self._executor.level.label,
            self.console.say,
            self._tensors,
            self._partners,
        )
        service.next_keys = self._next_keys()
        service.manager = lambda action, by, rights: manage(self._desk, self.requests, action, by, rights)
        return service

    def _place(self, limits: Limits, joint: bool) -> Host:
        """Where the tensors of a session are: a child of this kernel."""
        return (self._party_planner if joint else self._planner).plans(self.device, limits, joint)

    def _room(self) -> int:
        """Bytes that sessions on tensors may be promised together: a share of the memory that they are in."""
        return int(MEMORY_SHARE * machine.memory()) if self.device == "cpu" else 1 << 62

    def _wall(self) -> Wall:
        """Where what labels rest on is tried: a child of the fork server, on the CPU, that never holds private data."""
        limits = Limits(wall=TRY_SECONDS, memory=4 * self._settings.limits("analyst").memory)  # a base, and a variant of it
        return Wall(lambda: self._executor.plans("cpu", limits))

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
        """What one run may take; set it to another: ``owner.limits = lab.Limits(wall=60)``. `set_limits` sets one role's."""
        return self._settings.limits("")

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.set_limits("", limits)

    def set_limits(self, role: str, limits: Limits) -> None:
        """Journal what one run may take that somebody in this role asked for; each request shows it."""
        if not isinstance(limits, Limits):
            raise UsageError("limits are a lab.Limits, such as lab.Limits(wall=60, memory=2 << 30)")
        if role and role not in self._registry.roles:
            raise UsageError(f"there is no role {ascii(role)[:40]}; there are: {', '.join(self._registry.roles)}")
        self._settings.set_limits(role, limits)

    def notify(self, webhook: str | None, *, secret: str | None = None) -> None:
        """POST a line of JSON to this address when requests change: number, state, analyst; never code, reasons or values.

        With ``secret`` each carries ``X-Syft-Signature``, HMAC-SHA256 of the body. None ends it. Kept in the state folder.
        """
        self._webhook.set(webhook, secret)

    def _recover(self) -> None:
        cut = self._desk.settle_interrupted()
        if cut:
            self.console.say(f"{cut} runs of approved code were cut off when the kernel stopped; nothing of them left")
        self._desk.tidy()
        interrupted = self._ledger.settle_interrupted()
        if interrupted:
            self.console.say(f"{interrupted} questions were cut off when the kernel stopped; their cost counts as spent")
        for dataset in self._catalogue.live():
            if not dataset.meta["persist"]:
                self._journal.append("withdrawn", {"dataset": dataset.name, "version": dataset.version})
                self.console.say(f"{dataset.name} was kept in memory only and is gone; publish it again")
        stored = [d for d in self._catalogue.live() if d.meta["persist"]]
        for dataset in stored:
            self._store.expect(dataset.meta["file"], dataset.meta["commitment"], dataset.meta.get("salt"))
        self._store.remove_others({d.meta["file"] for d in self._catalogue.live()})
        if stored or len(self._journal) > 1:
            threading.Thread(target=self._look_over, args=(stored,), name="syft-verify", daemon=True).start()

    def _look_over(self, stored: Sequence[Dataset]) -> None:
        """Verify stored tables and the journal, in the background. A changed table is not answered from; the owner is told."""
        for dataset in stored:
            try:
                self._store.check(dataset.meta["file"])
            except StateError as error:
                self.console.say(f"{dataset.name} v{dataset.version} is not answered about: {error}")
        try:
            verify(self._folder / "journal.sqlite", self.keys.public)
        except VerificationError as error:
            if self.running:
                why = f"the journal does not verify: {error}"
                self._journal.halt(
                    f"{why}. Nothing is filed or released until the owner restored the state folder from a backup"
                )
                self.console.say(f"{why}. Nothing is released any more: stop, and restore the state folder from a backup")

    def _listen(self, listen: str | None, advertise: str | None) -> None:
        path = self._folder / "settings.json"
        saved = read_secret(path) if path.exists() else {}
        host, port = _address(listen or saved.get("listen") or f"{DEFAULT_HOST}:0", "listen")
        if host in EVERYWHERE and not (advertise or saved.get("advertise")):
            raise UsageError(f"{host} means every address: say with --advertise host:port which one analysts should use")
        if advertise is not None:
            _address(advertise, "advertise")
        self._interface = "0.0.0.0" if host in EVERYWHERE else host  # noqa: S104 - as the owner asked for
        bound = self._service.start(host, port)
        self.listens = f"{host}:{bound}"
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

    def _end(self) -> None:
        """End what was opened, as far as a start came."""
        parts = "_runs _service _tensors _webhook _planner _party_planner _executor _journal _store".split()
        for opened in filter(None, (getattr(self, part, None) for part in parts)):
            with contextlib.suppress(Exception):
                (opened.close if hasattr(opened, "close") else opened.stop)()

    def stop(self) -> None:
        """Answer what is in hand, then close; everything stays in the state folder. Idempotent."""
        if not self.running or os.getpid() != self._pid:  # a forked child shares the lock, and must not free it
            return
        self._runs.stop()
        self._service.stop()
        self._tensors.stop()
        for planner in {self._planner, self._party_planner} - {self._executor}:
            planner.stop()
        self._webhook.stop()
        self._journal.close()
        self._store.close()
        self._lock.release()
        atexit.unregister(self.stop)
        self.console.say("stopped")
        self._panels.stop()

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
        heads = [e.body["head"] for e in self._journal.of_kinds("suspended")]
        self._journal.append("restored", {"heads": heads, "lost": amounts})
        self.console.say("the restored journal was confirmed; questions are answered again")
        return self.budgets

    # Display

    def _summary(self) -> Card:
        if not self.running:
            return Card(f"Owner {self.name}: stopped", [("start again", f"%owner start {self.name}")])
        analysts = ", ".join(f"{a.name} ({a.role})" for a in self._registry.analysts) or "none yet: owner.invite(…)"
        pairs: list[tuple[str, object]] = [
            ("address", self.address),
            ("fingerprint", self.keys.public.fingerprint),
            ("isolation", f"approved code: {self.isolation}; DP questions run in this kernel"),
            ("device", f"{self.device} for plans on tensors; tables run on polars"),
            ("datasets", ", ".join(f"{d.name} v{d.version}" for d in self._catalogue.live()) or "none yet: owner.publish(…)"),
            ("analysts", analysts),
            ("requests", self._waiting()),
            ("policy", "; ".join(map(str, self.policy.rules)) or "nothing runs yet: owner.policy.allow(…)"),
            ("journal", f"{len(self._journal)} entr{'y' if len(self._journal) == 1 else 'ies'}"),
        ]
        warning = "An old copy of the state folder was restored: nothing is released until owner.confirm_restore()"
        gauges = self.budgets.gauges
        return Card(f"Owner {self.name}: running", pairs, gauges=gauges, warning=warning if self.suspended else "")

    @property
    def inbox(self) -> Any:
        """The approval widget: what analysts ask, live; its buttons answer also while a cell runs."""
        return self._panels.inbox()

    def views(self) -> dict[str, Any]:
        """What the workbench around the notebooks shows: see `Panels.views`."""
        return self._panels.views()

    @property
    def gauge(self) -> Any:
        """Dials of all budgets, live: spent, reserved, left, and exact releases."""
        return self._panels.gauge()

    def gauges(self) -> list[tuple[cards.Gauge, int]]:
        """Every population's budget and every analyst's account in it, each with its number of exact releases."""
        return [(_gauge(f"{population}, {analyst or 'all analysts'}", balance), exact)
                for population, analyst, balance, exact in self._ledger.balances()]  # fmt: skip

    def _waiting(self) -> str:
        told = [(UNDECIDED, "wait for you"), (("review",), "await your release"), (("running",), "running"),
                (("approved",), "queued")]  # fmt: skip
        found = [(self._desk.count(states), words) for states, words in told]
        counts = [f"{count} {words}" for count, words in found if count]
        return ", ".join(counts) + (": owner.inbox" if counts else "none open")

    @printed
    def __repr__(self) -> str:
        return repr(self._summary())

    def _repr_html_(self) -> str:
        return self._summary()._repr_html_()


def _gauge(label: str, balance: Balance) -> cards.Gauge:
    cap, spent, reserved = (c.epsilon / MICRO for c in (balance.cap, balance.spent, balance.reserved))
    return cards.Gauge(label, cap, spent, reserved)


def _address(text: str, setting: str) -> tuple[str, int]:
    host, colon, port = str(text).rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--{setting} {ascii(text)[:80]}: write host:port, such as 0.0.0.0:7000")
    return host, int(port)
