"""Who may do what at an owner: invitations, roles, access, and the keys they pin. Part of `Owner`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from syft_lab.budget.accountant import Budget, Cost
from syft_lab.errors import InvitationError, UsageError
from syft_lab.identity import Invitation, Keys, check_name, expiry
from syft_lab.kernel.console import Card
from syft_lab.kernel.publishing import Publishing
from syft_lab.kernel.roles import OWNER, RIGHTS, check_rights
from syft_lab.kernel.settings import Settings

DEFAULT_HOST = "127.0.0.1"


class People(Publishing):
    """The people of an owner."""

    keys: Keys
    address: str
    _settings: Settings

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
        default. ``role``: "analyst", "guest" (mocks only), "steward" (approves what others file), "auditor" (reads
        requests, journal and budgets), or one of `define_role`. ``path``: where to write, ``<analyst>.syft`` by default.
        Inviting again with the same terms, while the file is there, gives the same invitation, used or not; so a notebook
        can be run again. For a new one, take the file away. A second invitation for the same person, once used,
        replaces their keys, role and datasets; it can raise their budget, and never gives back what was spent.
        """
        self._check_running()
        check_name(analyst, "the analyst's name")
        if analyst == OWNER:
            raise UsageError("the name owner is yours; give the analyst another")
        if role not in self._registry.roles:
            raise UsageError(f"role must be one of {', '.join(self._registry.roles)}; it is {ascii(role)[:40]}")
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
                analyst=analyst, role=role, expires=expiry(expires, self._journal.now()), secret=one_time.curve_secret,
            ).signed_by(self.keys)  # fmt: skip
            self._journal.append("invited", {**terms, "invitation": invitation.id, "expires": invitation.expires})
            self._registry.reload()
            invitation.write(target)
            self.console.say(f"invited {analyst} as {role}")
        used = invitation.id in {i.id for i in self._registry.invitations if i.state == "used"}
        again = not used and analyst in self._registry.known
        pairs: list[tuple[str, object]] = [
            ("address", f"{self.address} (this machine only)" if self.address.startswith(DEFAULT_HOST) else self.address),
            ("file", f"{target.name}: hand it over on a safe way; whoever has it first can enrol, once"),
            ("open to", ", ".join(names) or "nothing yet"),
            ("budgets", "; ".join(f"{p}: {Cost(c['epsilon_micro'], c['delta_pico'])}" for p, c in caps.items()) or "none"),
            ("expires", invitation.expires),
            *([("goes on", f"with all that {analyst} had here before; another person needs another name")] if again else []),
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
        for entry in self._journal.of_kinds("invited"):
            if entry.body["invitation"] == found.id:
                (state,) = (i.state for i in self._registry.invitations if i.id == found.id)
                unchanged = all(entry.body[k] == v for k, v in terms.items()) and found.addresses == (self.address,)
                usable = state == "open" and not found.expired
                in_use = state == "used" and found.analyst in self.enrolled
                if unchanged and (usable or in_use):
                    return found
        return None

    def define_role(self, name: str, rights: Sequence[str]) -> Card:
        """A role of your own: a list of the rights mock, ask, file, read, approve, log. Those who have it have them at once."""
        self._check_running()
        chosen = check_rights(name, rights)
        if self._registry.roles.get(name) != chosen:
            self._journal.append("role", {"role": name, "rights": list(chosen)})
            self._registry.reload()
            self.console.say(f"role {name}: {', '.join(chosen)}")
        return self.roles

    @property
    def roles(self) -> Card:
        """All roles and what they may do."""
        found = [(n, "; ".join(RIGHTS[r] for r in rights)) for n, rights in self._registry.roles.items()]
        return Card(f"Roles at {self.name}", [(OWNER, "everything; whoever holds this kernel or its state folder"), *found])

    @property
    def approvals(self) -> int:
        """How many different people must approve code before it runs; a dataset may ask for more (`publish`)."""
        return self._settings.approvals

    @approvals.setter
    def approvals(self, count: int) -> None:
        if type(count) is not int or not 1 <= count <= 10:
            raise UsageError("approvals is how many people must approve code: 1 to 10")
        self._check_running()
        if count != self.approvals:
            self._settings.set_approvals(count)
            self.console.say(f"code needs {count} approvals from now on")

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
