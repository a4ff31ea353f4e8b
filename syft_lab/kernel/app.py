"""An owner without a notebook: ``syft-lab owner --config owner.toml`` does what the file says, and serves.

    name = "hospital-a"
    listen = "127.0.0.1:7000"            # optional, as are advertise and device
    policy = "policy.toml"               # optional: rules, as owner.policy.toml writes them

    [[dataset]]                          # the arguments of owner.publish; file is a Parquet file or folder
    file = "patients.parquet"
    name = "patients"
    privacy_unit = "patient_id"
    max_contributions = 3
    bounds = {age = [0, 110]}
    categories = {ward = ["er", "icu"]}
    budget = {epsilon = 3.0, delta = 1e-6}

    [[allow]]                            # the arguments of owner.policy.allow
    dataset = "patients"
    epsilon_per_query = 0.2

    [[invite]]                           # the arguments of owner.invite; left out once the analyst enrolled
    analyst = "alice"
    budgets = {patients = 1.0}

Starting again with the same file changes nothing.
"""

from __future__ import annotations

import inspect
import logging
import signal
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from syft_lab.budget.accountant import Budget
from syft_lab.errors import UsageError
from syft_lab.kernel.owner import Owner
from syft_lab.kernel.rulebook import Policy
from syft_lab.printable import printable

log = logging.getLogger("syft_lab.owner")


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in a TOML file; raises UsageError that names the setting at fault."""
    try:
        config = tomllib.loads(path.read_text())
    except OSError:
        raise UsageError(f"can't read {path.name}; name a TOML file with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is not TOML: {error}") from None
    unknown = set(config) - {"name", "listen", "advertise", "device", "policy", "dataset", "allow", "invite"}
    if unknown or "name" not in config:
        raise UsageError(f"{path.name}: " + (f"there is no setting {sorted(unknown)[0]!r}" if unknown else "name is missing"))
    for section, call in (("dataset", Owner.publish), ("allow", Policy.allow), ("invite", Owner.invite)):
        _check_section(path, config, section, call)
    return config


def _check_section(path: Path, config: dict[str, Any], section: str, call: Callable[..., Any]) -> None:
    entries = config.setdefault(section, [])
    parameters = inspect.signature(call).parameters
    known = set(parameters) - {"self", "data", "kind"} | ({"file"} if section == "dataset" else set())
    needed = {n for n, p in parameters.items() if p.default is p.empty} - {"self", "data", "kind"}
    if not isinstance(entries, list):
        raise UsageError(f"{path.name}: write [[{section}]], with two brackets")
    for entry in entries:
        wrong = sorted(set(entry) - known) or sorted(needed - set(entry))
        if wrong:
            raise UsageError(f"{path.name}: [[{section}]] has no, or lacks, the setting {wrong[0]!r}")


def apply(owner: Owner, config: dict[str, Any], folder: Path) -> None:
    """Publish, allow and invite as the file says; what is there already stays."""
    for entry in config["dataset"]:
        terms = dict(entry)
        budget = terms.pop("budget", None)
        terms["budget"] = Budget(**budget) if isinstance(budget, dict) else budget
        owner.publish(folder / terms.pop("file"), **terms)
    for entry in config["allow"]:
        owner.policy.allow("dp", **entry)
    if "policy" in config:
        owner.policy.load(folder / str(config["policy"]))
    for entry in config["invite"]:
        if entry["analyst"] not in owner.enrolled:
            owner.invite(**{**entry, "path": folder / entry.get("path", f"{entry['analyst']}.syft")})


def serve(path: Path) -> int:
    """Run the owner in ``path`` until SIGTERM or SIGINT; gives the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = read_config(path)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    owner = Owner.start(config["name"], config.get("listen"), config.get("advertise"), config.get("device", "cpu"))
    try:
        owner.console.on_event = lambda text: log.info("%s", printable(text))
        apply(owner, config, path.resolve().parent)
        owner.warm()
        log.info("%s answers at %s, fingerprint %s", owner.name, owner.address, owner.keys.public.fingerprint)
        while not stop.wait(1.0):
            pass
    finally:
        owner.stop()
    return 0
