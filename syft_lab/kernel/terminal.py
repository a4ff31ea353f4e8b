"""The owner's terminal: ``syft-lab requests`` speaks to the owner's own kernel, with a key from its state folder.

Whoever can read that folder is the owner; nobody else holds the key. The wire is the one that analysts use, on loopback.
"""

from __future__ import annotations

from typing import Any

from syft_lab import canonical, state
from syft_lab.errors import LabError, UsageError
from syft_lab.identity import Keys, read_secret
from syft_lab.printable import printable
from syft_lab.widgets.cards import visible
from syft_lab.wire import messages as m
from syft_lab.wire.link import Client
from syft_lab.wire.loop import LoopThread
from syft_lab.wire.zmq_link import ZmqTransport

SECONDS = 5.0


def ask(owner: str | None, action: dict[str, str]) -> Any:
    """Do an action at the running owner called ``owner`` (or the only one here); raises an error of the tree."""
    folder = state.home() / "owners"
    names = sorted(p.parent.name for p in folder.glob("*/terminal.json"))
    if owner is None and len(names) != 1:
        raise UsageError(f"name the owner with --owner; on this machine: {', '.join(names) or 'none'}")
    name = owner or names[0]
    if name not in names:
        raise UsageError(f"there is no owner {ascii(name)[:60]} on this machine; there are: {', '.join(names) or 'none'}")
    place = folder / name
    port = str(read_secret(place / "settings.json")["listen"]).rpartition(":")[2]
    server = Keys.load(place / "keys.json").public.curve
    loop = LoopThread("syft-terminal")

    async def work() -> Any:
        transport = await ZmqTransport.connect(f"127.0.0.1:{port}", server, Keys.load(place / "terminal.json"), SECONDS)
        client = Client(transport)
        try:
            reply = await client.request(m.Manage(canonical.dumps(action)), SECONDS)
        finally:
            client.close()
        if not isinstance(reply, m.Managed) or len(reply.payload) != 1:
            raise LabError("the owner's kernel gave another answer than was asked for; is it the same version?")
        return canonical.loads(bytes(reply.payload[0]), limit=m.Managed.max_payload)

    try:
        return loop.run(work(), 3 * SECONDS)
    finally:
        loop.stop()


def describe(do: str, found: Any) -> str:
    """What came of an action, for a terminal: whatever others wrote is spelled out where it could deceive."""
    if do == "list":
        lines = [f"{r['number']:>4}  {r['state']:<12} {r['analyst']:<16} {', '.join(r['datasets'])} → {', '.join(r['outputs'])}"
                 for r in found]  # fmt: skip
        return "\n".join(map(printable, lines)) or "no requests yet"
    if do != "show":
        return printable(f"request {found['number']}: {found['says']}" + (f" ({found['why']})" if found["why"] else ""))
    earlier, private = found["earlier"], found.get("private", {})
    near = ", ".join(f"{n['number']} ({n['state']})" for n in earlier["near"])
    rows = [("analyst", found["analyst"]), ("filed", found["filed"]), ("reads", ", ".join(found["datasets"])),
            ("returns", ", ".join(found["outputs"])), ("reason", found["reason"] or "none given"),
            *[("parameter", f"{k} = {v!r}") for k, v in found["params"].items()],
            ("like earlier", near), ("on the mock", found["behaviour"]), ("growth", found["growth"]),
            ("influence", found["influence"]), ("on the data", private.get("influence", "")),
            *[("cohort", line) for line in private.get("cohorts", ())], *[("hint", h) for h in found["hints"]],
            ("may take", found["limits"]), ("approvals", found["approvals"]), ("held because", private.get("held", "")),
            ("error", private.get("error", "")), ("digest", found["digest"]),
            *[(f"{c['by']} says", c["text"]) for c in found["comments"]], ("told", found["why"])]  # fmt: skip
    lines = [f"Request {found['number']}: {found['says']}"]
    lines += [f"  {printable(k):<12} {visible(v).replace(chr(10), ' ')}" for k, v in rows if v]
    lines += ["", *(f"  | {printable(line)}" for line in found["code"].rstrip().split("\n")), ""]
    lines += [f"  changed since request {earlier['against']}:", *(f"  {printable(line)}" for line in earlier["diff"]), ""] \
        if earlier["diff"] else []  # fmt: skip
    for value in found.get("preview", ()):
        small = f", {value['small']} may be counts below 3" if value["small"] else ""
        lines += [f"  {printable(value['name'])}: {value['kind']}, {value['bytes']} bytes{small}", visible(value["preview"])]
    number, digest = found["number"], found["digest"]
    decide = f"syft-lab requests approve {number} {digest}\n      syft-lab requests deny {number} REASON"
    nexts = {"filed": decide, "seen": decide, "partly": decide,
             "review": f"syft-lab requests release {number}, or withhold {number} REASON",
             "failed": f"syft-lab requests release_error {number} lets the kind of error and its line leave"}  # fmt: skip
    return "\n".join(lines + ([f"next: {nexts[found['state']]}"] if found["state"] in nexts else []))
