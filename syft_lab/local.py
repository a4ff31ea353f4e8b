"""Owners in this process, for tests and teaching: real owners, real sessions, and the in-memory link between them."""

from __future__ import annotations

import asyncio
import atexit
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from syft_lab.analyst.session import CONNECT_SECONDS, Session
from syft_lab.budget.accountant import Budget
from syft_lab.errors import ConnectionLost
from syft_lab.identity import Invitation, Keys, Trust, check_name
from syft_lab.kernel.executor.plans import Here, Host
from syft_lab.kernel.executor.supervisor import Limits
from syft_lab.kernel.executor.wall import Apart, Wall
from syft_lab.kernel.owner import Owner
from syft_lab.wire.codec import Frame
from syft_lab.wire.link import Client, Hub, MemoryTransport

ANALYST = "analyst"


def virtual_owners(*names: str) -> tuple[VirtualOwner, ...]:
    """Owners called so, each with you as its analyst: ``alice, bob = lab.virtual_owners("alice", "bob")``.

    What they hold is gone with this process. Raises UsageError for a name that owners can't have.
    """
    return tuple(VirtualOwner(name) for name in names)


class VirtualOwner(Session):
    """A session at an owner in this process. ``host`` is the owner's side: the inbox, policies, the audit."""

    def __init__(self, name: str) -> None:
        check_name(name, "the owner's name")
        self._place = tempfile.TemporaryDirectory(prefix="syft-lab-", ignore_cleanup_errors=True)
        folder = Path(self._place.name)
        self.host: Owner = _Host(name, folder / "owner", None, None)
        self._enrol(folder)
        super().__init__(name, folder, CONNECT_SECONDS)
        self.reconnect()
        atexit.register(self.close)

    def publish(self, data: Any, name: str, **terms: Any) -> Any:
        """`Owner.publish`, with terms for teaching where none are given: rows protected, a large budget, and you may ask."""
        given = {"privacy_unit": "row", "rows_public": True, **terms}
        population = given.get("population", name)
        if population not in self.host._ledger.populations():
            given.setdefault("budget", Budget(100.0, 1e-3))
        card = self.host.publish(data, name, **given)
        self.host.policy.allow("dp", dataset=name, epsilon_per_query=100)
        self._enrol(self._folder)
        self._trust, self._keys = (
            replace(Trust.load(self._folder), head=self._trust.head),
            Keys.load(self._folder / "keys.json"),
        )
        self.reconnect()
        return card

    def close(self) -> None:
        """End the session and the owner; idempotent."""
        super().close()
        if self.host.running:
            self.host.stop()
            self._place.cleanup()
        atexit.unregister(self.close)

    def _enrol(self, folder: Path) -> None:
        """Keys that the owner knows, for all that is published now."""
        path = folder / "invitation.syft"
        path.unlink(missing_ok=True)
        budgets = {p: Budget(c.epsilon / 1e6, c.delta / 1e12) for p in self.host._ledger.populations()
                   for c in (self.host._ledger.population(p).cap,)}  # fmt: skip
        self.host.invite(ANALYST, budgets=budgets, path=path)
        invitation, keys = Invitation.read(path), Keys.generate()
        self.host._registry.enrol(invitation.id, keys.public)
        keys.save(folder / "keys.json")
        Trust(owner=invitation.owner, analyst=ANALYST, signing=invitation.signing, curve_keys=(invitation.curve,),
              addresses=invitation.addresses, invitation=invitation.id, head=None).save(folder)  # fmt: skip

    async def _dial(self) -> tuple[Client, str]:
        service = self.host._service
        if service.hub is None or service.loop is None:
            raise ConnectionLost(f"{self.alias} was stopped")
        bridge = _Bridge(service.hub, service.loop, self._keys.public.curve)
        return Client(bridge), self._trust.curve_keys[0]


class _Host(Owner):
    """An owner without a socket, whose tensors are in this process."""

    def _listen(self, listen: str | None, advertise: str | None) -> None:
        self._service.start_here()
        self.address, self.listens, self._interface = "127.0.0.1:0", "", "127.0.0.1"

    def _place(self, limits: Limits, joint: bool) -> Host:
        return Here(self.device, limits.memory, limits.wall, joint)

    def _room(self) -> int:
        return 1 << 62  # pointers of this process hold what is here in any case

    def _wall(self) -> Wall:
        return _shared_wall()


@cache
def _shared_wall() -> Wall:
    """One process tries what labels rest on for all owners of this one."""
    return Wall(Apart, shared=True)


class _Bridge(MemoryTransport):
    """The in-memory link where session and owner have loops of their own."""

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop, key: str) -> None:
        super().__init__(hub, key)
        self._there, self._here = loop, asyncio.get_running_loop()

    async def send(self, frames: list[Frame]) -> None:
        """Hand the frames to the owner's loop."""
        copied = [bytes(f) for f in frames]
        try:
            self._there.call_soon_threadsafe(self._hub.feed, self._name, self._key, copied, self._deliver)
        except RuntimeError:
            raise ConnectionLost("the owner was stopped") from None

    async def _deliver(self, frames: list[Frame]) -> None:
        copied = [bytes(f) for f in frames]
        try:
            self._here.call_soon_threadsafe(self._inbox.put_nowait, copied)
        except RuntimeError:
            raise ConnectionLost("the analyst is gone") from None

    def close(self) -> None:
        """End the connection."""
        self._inbox.put_nowait(None)
        if not self._there.is_closed():
            self._there.call_soon_threadsafe(self._hub.drop, self._name)
