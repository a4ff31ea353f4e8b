"""``%connect``, ``%budget``, ``%%remote`` and ``%requests``: parse, and call `session` and `remote`."""

from __future__ import annotations

from typing import Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import display

from syft_lab.analyst.frame import PointerFrame
from syft_lab.analyst.remote import check_names, parameter, run_on_mock
from syft_lab.analyst.request import RemoteRequest
from syft_lab.analyst.session import CONNECT_SECONDS, Session, connect, connections
from syft_lab.cell import Cell, Use, check, variable
from syft_lab.errors import UsageError
from syft_lab.printable import printable, printed
from syft_lab.widgets import cards

WAIT_SLICE = 0.2  # seconds between looks for an interrupt


def connection_names() -> list[str]:
    """Names of known connections, for completion."""
    return connections()


@magics_class
class AnalystMagics(Magics):
    """The analyst's magics."""

    @no_var_expand
    @line_magic("connect")
    @magic_arguments()
    @argument("target", help="an invitation file (the first time), or the owner's name")
    @argument("--as", dest="alias", help="name to keep the connection under")
    @argument("--timeout", type=float, default=CONNECT_SECONDS, help="seconds to wait for an address")
    def connect(self, line: str) -> None:
        """Connect to an owner: ``%connect alice.syft``, later ``%connect hospital-a``. Binds ``hospital_a``."""
        args = parse_argstring(self.connect, uncommented(line))
        session = connect(args.target.strip("'\""), alias=args.alias, timeout=args.timeout)
        name = variable(session.alias)
        old = self.shell.user_ns.get(name)
        if isinstance(old, Session):
            old.close()
        self.shell.user_ns[name] = session
        display(session)

    @no_var_expand
    @line_magic("budget")
    @magic_arguments()
    @argument("session", nargs="?", help="one connection's variable or name; all by default")
    def budget(self, line: str) -> None:
        """Show what is spent, reserved and left at each connected owner."""
        args = parse_argstring(self.budget, uncommented(line))
        for session in self._sessions(args.session):
            display(session.budget())

    @no_var_expand
    @cell_magic
    @magic_arguments()
    @argument("owner", help="the connection's variable or name")
    @argument(
        "--use",
        nargs="+",
        required=True,
        metavar="DATASET",
        help="datasets, or filtered frames of this notebook, that the cell reads under these names",
    )
    @argument("--return", dest="returns", nargs="+", required=True, metavar="NAME", help="what leaves: each becomes a Result")
    @argument("--reason", default="", help="why, for the owner")
    @argument(
        "--param", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="a value that is part of the request"
    )
    @argument("--follows", type=int, default=0, metavar="NUMBER", help="the request that this one mends")
    @argument("--block", action="store_true", help="wait for the values; Interrupt ends the wait, not the request")
    @argument("--dry-run", action="store_true", help="run it here on the mock, show what it would return, and ask nothing")
    @argument("--noblock", action="store_true", help="leave the notebook free (the default)")
    def remote(self, line: str, cell: str) -> None:
        """Ask an owner to run this cell: it runs here on the mock first, then waits for the owner's approval."""
        __tracebackhide__ = True
        args = parse_argstring(self.remote, uncommented(line))
        if args.block and args.noblock:
            raise UsageError("--block or --noblock, not both")
        session = self._sessions(args.owner)[0]
        uses = [self._use(session, n.rstrip(",")) for n in args.use]
        asked = Cell(
            cell,
            tuple(uses),
            tuple(n.rstrip(",") for n in args.returns),
            dict(parameter(p.strip("'\"")) for p in args.param),
            args.reason.strip("'\""),
        )
        check(asked)
        check_names(asked, self.shell.user_ns)
        made = run_on_mock(asked, {u.variable: session.stand_in(session.source(u.dataset), u) for u in uses})
        if args.dry_run:
            display(OnMock(made))
            return
        request = session.file(asked, follows=args.follows)
        self.shell.user_ns.update(request.results)
        show(request)
        if args.block:
            wait(request)

    @no_var_expand
    @line_magic("requests")
    @magic_arguments()
    @argument(
        "action",
        nargs="?",
        choices=["list", "fetch", "cancel", "comment", "show"],
        default="list",
        help="what to do (default: list)",
    )
    @argument("number", nargs="?", type=int, help="the request's number")
    @argument("text", nargs="*", help="what to say, for comment")
    @argument("--owner", help="one connection's variable or name, where there are several")
    def requests(self, line: str) -> None:
        """Your requests: ``%requests fetch 7`` binds results, ``show 7``, ``comment 7 TEXT``, ``cancel 7`` takes it back."""
        args = parse_argstring(self.requests, uncommented(line))
        sessions = self._sessions(args.owner)
        if args.action == "list":
            for session in sessions:
                display(Listing(session.owner, session.requests))
            return
        if args.number is None:
            raise UsageError(f"which one? %requests {args.action} NUMBER")
        if len(sessions) > 1:
            raise UsageError("several owners are connected: say which with --owner NAME")
        request = sessions[0].request(args.number)
        if args.action == "cancel":
            request.cancel()
        elif args.action == "comment":
            request.comment(" ".join(args.text).strip("'\""))
        elif args.action == "show":
            display(request)
            return
        else:
            self.shell.user_ns.update(request.results)
        show(request)

    def _use(self, session: Session, name: str) -> Use:
        """A dataset by its name, or a frame of this notebook by its variable."""
        frame = self.shell.user_ns.get(name)
        if isinstance(frame, PointerFrame) and frame._source.session is session:
            return frame.use("" if variable(frame._source.name) == name else name)
        return Use(name, session.source(name).version)

    def _sessions(self, name: str | None) -> list[Session]:
        """The notebook's connections called ``name``, or all; raises UsageError where there is none."""
        found = sessions_in(self.shell.user_ns)
        chosen = {id(s): s for n, s in found.items() if name in (None, n, s.alias)}
        if chosen:
            return list(chosen.values())
        if name is None or not found:
            raise UsageError("no such connection in this notebook; %connect FILE makes one")
        raise UsageError(f"no connection is called {ascii(name)[:60]}; there are: {', '.join(found)}")


class OnMock:
    """What a cell made of the mock: names, kinds, and the values themselves, which are made up."""

    def __init__(self, made: dict[str, Any]) -> None:
        self._made = {name: (found.describe(), found.value()) for name, found in made.items()}

    def _facts(self) -> list[tuple[str, str]]:
        return [
            (f"{name} ({about['kind']}{' ' + '×'.join(map(str, about['shape'])) if about['shape'] else ''})", str(value)[:500])
            for name, (about, value) in self._made.items()
        ]

    @printed
    def __repr__(self) -> str:
        lines = [f"  {name}: {value}" for name, value in self._facts()]
        return "\n".join(["On the mock; nothing was asked of the owner:", *lines])

    def _repr_html_(self) -> str:
        return cards.card("On the mock", cards.facts(self._facts()), cards.note("made-up data; nothing was asked of the owner"))


class Listing:
    """One's requests at an owner, as a table."""

    def __init__(self, owner: str, requests: list[RemoteRequest]) -> None:
        self.owner, self.requests = owner, requests

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (str(r.number), r.state, ", ".join(r.returns), r.facts["cell"]["reason"], r.why) for r in reversed(self.requests)
        ]

    @printed
    def __repr__(self) -> str:
        lines = [f"{n:>4}  {state:<12} {names}" + (f": {why}" if why else "") for n, state, names, _, why in self._rows()]
        return "\n".join([f"Your requests at {self.owner}", *(printable(line) for line in lines or ["  none yet"])])

    def _repr_html_(self) -> str:
        head = ("no.", "state", "returns", "reason", "what the owner said")
        return cards.card(f"Your requests at {self.owner}", cards.table(head, self._rows(), "none yet"))


def uncommented(line: str) -> str:
    """A magic's line without the comment that may follow, as in Python; quoted text keeps its signs."""
    quote = ""
    for i, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and line[i - 1 : i] in ("", " "):
            return line[:i]
    return line


def sessions_in(namespace: dict[str, Any]) -> dict[str, Session]:
    """The connections in a notebook, by variable."""
    return {n: s for n, s in namespace.items() if isinstance(s, Session) and not n.startswith("_")}


def show(request: RemoteRequest) -> None:
    """Display a request's state, and keep it live; the last state replaces it, so that a saved notebook shows the end."""
    from syft_lab.widgets.status import RequestStatus

    def look() -> dict[str, Any]:
        return {"owner": request.owner, "number": request.number, "state": request.state, "why": request.why,
                "returns": request.returns, "comments": request.comments, "error": request.error,
                "approvals": request.facts["approvals"]}  # fmt: skip

    commands = {"cancel": lambda _: request.cancel(), "comment": lambda c: request.comment(str(c.get("text", "")))}
    panel = RequestStatus(look, commands, lambda: request.progress)
    about = {"syft_lab": {"owner": request.owner, "number": request.number}}  # the notebook marks the cell with it
    handle = display(panel, display_id=True, metadata=about)

    def hear(_: RemoteRequest) -> None:
        panel.refresh()
        if request.over and handle is not None:
            handle.update(panel, metadata=about)

    request.on_change(hear)


def wait(request: RemoteRequest) -> None:
    """Wait in slices until every result is here; raises what came instead. An interrupt ends the wait, and says so."""
    __tracebackhide__ = True
    try:
        while not request.wait(WAIT_SLICE):
            continue
    except KeyboardInterrupt:
        print(f"the wait ended; request {request.number} goes on: {', '.join(request.returns)}.get() waits again, "
              f"%requests cancel {request.number} takes it back")  # fmt: skip
        raise
    for result in request.results.values():
        result.get()
