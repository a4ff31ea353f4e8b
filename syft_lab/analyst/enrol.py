"""Reaching an owner: dialling its addresses with a pinned key, and enrolling once with an invitation."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from syft_lab import __version__, canonical
from syft_lab.errors import ConnectError, KeyMismatchError
from syft_lab.identity import Invitation, Keys, Trust
from syft_lab.wire import messages as m
from syft_lab.wire.link import Client
from syft_lab.wire.zmq_link import ZmqTransport


async def enrol(invitation: Invitation, folder: Path, timeout: float) -> None:
    """Use the invitation; the new keys are on disk before it, so that a lost reply can be asked for again."""
    keys = Keys.load_or_create(folder / f"enrolling-{invitation.keys.fingerprint[:4]}-{_mark(invitation.id)}.json")
    covered = canonical.dumps([invitation.curve, invitation.id, keys.public.curve, keys.public.signing])
    message = m.Enrol(list(m.VERSIONS), f"syft-lab {__version__}", keys.public.curve, keys.public.signing,
                      keys.sign("enrol", covered))  # fmt: skip
    once = Keys(invitation.secret, secrets.token_bytes(32))  # only its CURVE half is used
    client, _ = await dial(invitation.addresses, (invitation.curve,), once, timeout)
    try:
        await client.request(message, timeout)
    finally:
        client.close()
    old = Trust.load(folder) if (folder / "trust.json").is_file() else None
    keys.save(folder / "keys.json")
    Trust(
        owner=invitation.owner, analyst=invitation.analyst, signing=invitation.signing, curve_keys=(invitation.curve,),
        addresses=invitation.addresses, invitation=invitation.id, head=old.head if old else None,
    ).save(folder)  # fmt: skip
    for pending in folder.glob("enrolling-*.json"):
        pending.unlink()


def _mark(key: str) -> str:
    return "".join(c for c in key if c.isalnum())[:12]


async def dial(addresses: tuple[str, ...], server_keys: tuple[str, ...], keys: Keys, timeout: float) -> tuple[Client, str]:
    """A client to the first address that answers with a pinned key, and that key; raises the most telling error."""
    failures: list[ConnectError] = []
    end = time.monotonic() + timeout
    for address in addresses:
        for server_key in server_keys:
            try:
                left = max(0.3, end - time.monotonic())
                return Client(await ZmqTransport.connect(address, server_key, keys, left)), server_key
            except ConnectError as error:
                failures.append(error)
    telling = [f for f in failures if isinstance(f, KeyMismatchError)]
    raise (telling or failures)[0]
