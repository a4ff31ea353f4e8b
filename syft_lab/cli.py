"""``syft-lab owner|requests|verify|doctor``: for those who run it without a notebook. Exit codes: 0 good, 1 not, 2 usage."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TextIO

from syft_lab import __version__, state, study, wording
from syft_lab.errors import LabError, StateError, UsageError, WireError
from syft_lab.identity import Keys, PublicKeys, Trust
from syft_lab.printable import printable
from syft_lab.receipt import Receipt
from syft_lab.report import report

_NEEDED = ("cryptography", "ipykernel", "ipython", "msgpack", "numpy", "opendp", "pandas", "polars", "pyarrow", "pyzmq")
_OPTIONAL = {"torch": "tensors", "scikit-learn": "code", "segno": "qr", "statsmodels": "demo", "nbclient": "demo"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="syft-lab", description="Private data stay with their owner; notebooks ask.")
    parser.add_argument("--version", action="version", version=f"syft-lab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    owner = commands.add_parser("owner", help="host datasets without a notebook")
    owner.add_argument("--config", required=True, type=Path, help="a TOML file, as docs/howto/headless.md has it")
    requests = commands.add_parser("requests", help="decide about requests of an owner who runs on this machine")
    requests.add_argument(
        "do", choices=["list", "show", "approve", "deny", "comment", "release", "withhold", "cancel", "drop", "release_error"]
    )
    requests.add_argument("number", nargs="?", default="", help="the request's number")
    requests.add_argument(
        "text",
        nargs="*",
        help="for approve, the digest (and more pairs of number and digest); for deny, withhold, comment, words",
    )
    requests.add_argument("--owner", help="which owner, where this machine has several")
    verify = commands.add_parser("verify", help="check receipts, exported logs or a journal, offline")
    verify.add_argument("files", nargs="*", type=Path, help="receipts, and one log from owner.audit.export: a whole study")
    verify.add_argument("--key", help="the owner's signing key (64 hexadecimal digits), or its fingerprint")
    verify.add_argument(
        "--journal", type=Path, help="an owner's state folder, or a copy of its journal: check it, and receipts against it"
    )
    verify.add_argument("--report", type=Path, metavar="FILE", help="write a report on the exported log, in Markdown")
    commands.add_parser("doctor", help="versions, device, state folder, what is missing")
    parsed = parser.parse_args(arguments)
    run: dict[str, Callable[[argparse.Namespace], int]] = {
        "owner": _owner, "requests": _requests, "verify": _verify, "doctor": _doctor,
    }  # fmt: skip
    try:
        return run[parsed.command](parsed)
    except UsageError as error:
        _say(f"syft-lab: {error}", sys.stderr)
        return 2
    except LabError as error:
        _say(f"syft-lab: {error}", sys.stderr)
        return 1


def _say(text: str, where: TextIO | None = None) -> None:
    """Print for a terminal: names, reasons and values of others come in it."""
    print(printable(text, lines=True), file=where or sys.stdout)


def _owner(parsed: argparse.Namespace) -> int:
    from syft_lab.kernel.app import serve

    return serve(parsed.config)


def _requests(parsed: argparse.Namespace) -> int:
    from syft_lab.kernel.terminal import ask, describe

    if parsed.do == "approve" and len(parsed.text) > 1:
        pairs = [parsed.number, *parsed.text]
        if len(pairs) % 2:
            raise UsageError("give pairs: syft-lab requests approve NUMBER DIGEST NUMBER DIGEST …")
        for number, digest in zip(pairs[::2], pairs[1::2], strict=True):
            _say(describe("approve", ask(parsed.owner, {"do": "approve", "request": number, "digest": digest})))
        return 0
    said = " ".join(parsed.text)
    if parsed.do != "list" and not parsed.number:
        raise UsageError(f"which one? syft-lab requests {parsed.do} NUMBER")
    if parsed.do == "approve" and not said:
        raise UsageError("say what you approve: syft-lab requests approve NUMBER DIGEST; show prints the digest")
    action = {"do": parsed.do, "request": parsed.number, "digest": said, "reason": said}
    _say(describe(parsed.do, ask(parsed.owner, action)))
    return 0


def _verify(parsed: argparse.Namespace) -> int:
    if not parsed.files and parsed.journal is None:
        raise UsageError("name receipts, an exported log, or --journal FOLDER")
    logs = [path for path in parsed.files if _is_study(path)]
    receipts = [(path, _read(path)) for path in parsed.files if path not in logs]
    if len(logs) > 1:
        raise UsageError("name one exported log at a time")
    if parsed.report and not logs:
        raise UsageError("--report goes with an exported log: owner.audit.export writes one")
    for path, receipt in receipts:
        said = receipt.verify(_trusted(receipt.owner, receipt.signer, parsed))
        question = wording.asked(said)
        about = (
            f"{question} (version {said['version']} of {said['dataset']})"
            if question
            else f"{', '.join(said['returns']) or 'the kind of error'} of request {said['number']}"
        )
        _say(f"{path.name}: good. {receipt.owner} released {about} "
              f"to {said['analyst']} on {receipt.time[:19]} under {said['guarantee']}; {said['neighbours']}")  # fmt: skip
    found = [receipt for _, receipt in receipts]
    for path in logs:
        _verify_study(path, parsed, found)
    if parsed.journal is not None:
        _verify_journal(parsed.journal, _journal_keys(parsed), found)
    return 0


def _is_study(path: Path) -> bool:
    try:
        return study.is_study(path)
    except OSError:
        raise UsageError(f"can't read {path.name}") from None


def _verify_study(path: Path, parsed: argparse.Namespace, receipts: Sequence[Receipt]) -> None:
    """A log, its signed head, the receipts in it, and where nothing is withheld, the budgets that follow from it."""
    found = study.load(path)
    head = found.verify(_trusted(found.owner, found.keys, parsed))
    withheld = len(found.leaves) - len(found.entries)
    _say(f"{path.name}: good. {head.size} entries of {found.owner}, signed on {head.time[:19]}"
          + (f"; {withheld} of them are withheld, as hashes" if withheld else ""))  # fmt: skip
    mine = [r for r in receipts if r.signer.signing == found.keys.signing]
    found.holds(mine)
    if mine:
        _say(f"{path.name}: holds the entries of {len(mine)} receipts, and continues the heads in them")
    if found.complete:
        from syft_lab.kernel.journal import fold

        fold(found.said())
        _say(f"{path.name}: every budget, state and approval follows from the entries")
    if parsed.report:
        with state.given(parsed.report) as out:
            out.write(report(found.owner, found.said()).encode())
        _say(f"{path.name}: the report is in {parsed.report.name}")


def _read(path: Path) -> Receipt:
    try:
        return Receipt.load(path)
    except OSError:
        raise UsageError(f"can't read {path.name}") from None
    except WireError as error:
        raise WireError(f"{path.name}: {error}") from None


def _trusted(owner: str, signer: PublicKeys, parsed: argparse.Namespace) -> PublicKeys:
    """The owner's keys as this machine knows them; a file's own word for its signer is worth nothing."""
    known = [signer] if parsed.key and _names(parsed.key, signer) else []
    if parsed.key and not known:
        raise UsageError(f"this is signed by {signer.fingerprint}, which is not the key given")
    if parsed.journal is not None:
        known.append(_journal_keys(parsed))
    for folder in sorted((state.home() / "connections").glob("*/trust.json")):
        trust = Trust.load(folder.parent)
        if trust.signing == signer.signing:
            known.append(trust.keys)
    if not known:
        raise UsageError(
            f"the owner is not known here. Compare this fingerprint with {owner}'s, and give it with --key: "
            f"'{signer.fingerprint}'"
        )
    return known[0]


def _names(key: str, keys: PublicKeys) -> bool:
    return key.replace(" ", "").lower() in (keys.signing, keys.fingerprint.replace(" ", ""))


def _journal_keys(parsed: argparse.Namespace) -> PublicKeys:
    """The owner's signing key: the one given, or in the owner's own folder. An auditor needs no secret."""
    key = (parsed.key or "").lower()
    if len(key) == 64:
        try:
            return PublicKeys("0" * 40, key)  # the CURVE key plays no part in signatures
        except WireError:
            raise UsageError("--key takes 64 hexadecimal digits, or a fingerprint") from None
    if not parsed.journal.is_dir():
        raise UsageError("give the owner's signing key with --key (64 hexadecimal digits) to check a copy of a journal")
    return Keys.load(parsed.journal / "keys.json").public


def _verify_journal(place: Path, keys: PublicKeys, receipts: Sequence[Receipt]) -> None:
    from syft_lab.kernel.journal import read_entries, verify

    path = place / "journal.sqlite" if place.is_dir() else place
    head = verify(path, keys)
    _say(f"journal: good. {head.size} entries; hashes, signatures and budgets check")
    entries = read_entries(path)
    for receipt in receipts:
        if receipt.index >= len(entries) or entries[receipt.index] != receipt.entry:
            raise StateError(
                f"the journal lacks entry {receipt.index}, for which {receipt.owner} signed a receipt: it was rolled back"
            )
    if receipts:
        _say(f"journal: holds the entries of all {len(receipts)} receipts")


def _doctor(parsed: argparse.Namespace) -> int:
    _say(f"syft-lab     {__version__}\npython       {platform.python_version()} on {platform.system()} {platform.machine()}")
    missing = []
    for name in _NEEDED:
        version = _version(name)
        _say(f"{name:<12} {version or 'MISSING'}")
        if version is None:
            missing.append(name)
    for name, extra in _OPTIONAL.items():
        version = _version(name)
        _say(f"{name:<12} {version or f'not installed; pip install syft-lab[{extra}] brings it'}")
    _say(f"device       {_device()}")
    from syft_lab.kernel.executor import levels

    _say(f"isolation    {levels.probe()}")
    _say(f"curve        {'yes' if _has_curve() else 'MISSING: this pyzmq was built without CURVE'}")
    folder = state.home()
    _say(f"state        {'set by SYFT_LAB_HOME' if folder != _default_home() else 'in the default place'}: {_describe(folder)}")
    if missing or not _has_curve():
        _say(f"missing      {', '.join(missing) or 'CURVE'}: pip install --upgrade syft-lab")
        return 1
    _say("all that is needed is here")
    return 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device() -> str:
    if _version("torch") is None:
        return "cpu (torch is not installed)"
    import torch

    return f"cuda: {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cpu"


def _has_curve() -> bool:
    import zmq

    return bool(zmq.has("curve"))


def _default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("syft-lab", appauthor=False))


def _describe(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} (not made yet)"
    owners = sorted(p.parent.name for p in folder.glob("owners/*/keys.json"))
    connections = sorted(p.parent.name for p in folder.glob("connections/*/trust.json"))
    return f"{folder} (owners: {', '.join(owners) or 'none'}; connections: {', '.join(connections) or 'none'})"
