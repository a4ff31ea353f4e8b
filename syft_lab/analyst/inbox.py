"""For stewards: what others filed at an owner, and what may be done about it from afar. No result is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from syft_lab.errors import UsageError
from syft_lab.printable import printable, printed
from syft_lab.widgets import cards

Act = Callable[[dict[str, str]], Any]


class Filed:
    """A request of somebody at an owner, as a steward sees it: `approve` by its digest, `deny`, or `comment`."""

    def __init__(self, act: Act, facts: dict[str, Any]) -> None:
        self._act, self.facts = act, facts

    @property
    def number(self) -> int:
        """Its number at the owner."""
        return int(self.facts["number"])

    @property
    def state(self) -> str:
        """Its state when it was last asked for; `refresh` asks anew."""
        return str(self.facts["state"])

    @property
    def digest(self) -> str:
        """What an approval is about: code, inputs, data version, outputs, parameters and environment."""
        return str(self.facts["digest"])

    @property
    def code(self) -> str:
        """The cell. Print it with care: the card spells deceiving characters out."""
        return str(self.facts["code"])

    def approve(self, digest: str) -> Filed:
        """Agree that exactly this runs: ``request.approve(digest=request.digest)``."""
        return self._do("approve", digest=digest)

    def deny(self, reason: str) -> Filed:
        """Refuse; the reason reaches the analyst."""
        return self._do("deny", reason=reason)

    def comment(self, text: str) -> Filed:
        """Say something to the analyst and to others who decide."""
        return self._do("comment", reason=text)

    def refresh(self) -> Filed:
        """Ask anew; tells the analyst that it was seen."""
        return self._do("show")

    def _do(self, do: str, **more: str) -> Filed:
        self.facts = {**self.facts, **self._act({"do": do, "request": str(self.number), **more})}
        return self

    def _pairs(self) -> list[tuple[str, str]]:
        said = self.facts
        near = ", ".join(f"{n['number']} ({n['state']})" for n in said["earlier"]["near"])
        pairs = [("analyst", said["analyst"]), ("reads", ", ".join(said["datasets"])), ("returns", ", ".join(said["outputs"])),
                 ("reason", said["reason"] or "none given"),
                 ("parameters", ", ".join(f"{k} = {v!r}" for k, v in said["params"].items())), ("code", said["code"].rstrip()),
                 ("like earlier", near), ("changes", "\n".join(said["earlier"]["diff"])),
                 ("on the mock", said.get("behaviour", "")), ("growth", said["growth"]), ("influence", said["influence"]),
                 ("hints", "\n".join(said["hints"])), ("may take", said["limits"]), ("approvals", said["approvals"]),
                 ("digest", said["digest"]), ("comments", "\n".join(f"{c['by']}: {c['text']}" for c in said["comments"])),
                 ("told", said["why"])]  # fmt: skip
        return [(k, v) for k, v in pairs if v]

    @printed
    def __repr__(self) -> str:
        lines = [f"  {k:<12}  {cards.visible(v).replace(chr(10), chr(10) + ' ' * 16)}" for k, v in self._pairs()]
        return "\n".join([f"Request {self.number}: {self.state}", *lines])

    def _repr_html_(self) -> str:
        return cards.card(f"Request {self.number}: {self.state}", cards.facts(self._pairs()))


class Inbox(Sequence[Filed]):
    """All requests at an owner, asked anew each time: those that wait for a decision first, then the newest."""

    def __init__(self, owner: str, act: Act) -> None:
        self._owner, self._act = owner, act

    def _all(self) -> list[Filed]:
        return [Filed(self._act, facts) for facts in self._act({"do": "list"})]

    def number(self, number: int) -> Filed:
        """The request with this number, with all that is known of it; the analyst may know that it was seen."""
        if type(number) is not int:
            raise UsageError("name a request by its number: session.inbox.number(7)")
        return Filed(self._act, self._act({"do": "show", "request": str(number)}))

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> Filed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Filed]: ...
    def __getitem__(self, index: int | slice) -> Filed | list[Filed]:
        found = self._all()
        if isinstance(index, slice):
            return found[index]
        if not found:
            raise UsageError("there are no requests yet")
        return found[index].refresh()

    def __iter__(self) -> Iterator[Filed]:
        return iter(self._all())

    def _rows(self) -> list[tuple[str, ...]]:
        return [(str(f.number), f.state, f.facts["analyst"], ", ".join(f.facts["datasets"]), ", ".join(f.facts["outputs"]),
                 f.facts["approvals"]) for f in self]  # fmt: skip

    @printed
    def __repr__(self) -> str:
        lines = [
            f"{n:>4}  {state:<12} {who:<16} {reads} → {gives}  {given}".rstrip()
            for n, state, who, reads, gives, given in self._rows()
        ]
        return "\n".join([f"Requests at {self._owner}", *(map(printable, lines or ["  none yet"]))])

    def _repr_html_(self) -> str:
        head = ("no.", "state", "analyst", "reads", "returns", "approvals")
        return cards.card(f"Requests at {self._owner}", cards.table(head, self._rows(), "none yet"))
