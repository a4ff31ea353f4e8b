"""``%connect`` and ``%budget``: parse, and call `session`."""

from __future__ import annotations

import re

from IPython.core.magic import Magics, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import display

from syft_lab.analyst.session import CONNECT_SECONDS, Session, connect, connections
from syft_lab.errors import UsageError


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
        args = parse_argstring(self.connect, line.partition(" #")[0])  # a comment may follow, as in Python
        session = connect(args.target.strip("'\""), alias=args.alias, timeout=args.timeout)
        name = re.sub(r"\W", "_", session.alias)
        if name[0].isdigit():
            name = f"_{name}"
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
        args = parse_argstring(self.budget, line.partition(" #")[0])
        sessions = {id(s): (n, s) for n, s in self.shell.user_ns.items() if isinstance(s, Session) and not n.startswith("_")}
        chosen = [s for n, s in sessions.values() if args.session in (None, n, s.alias)]
        if not chosen:
            raise UsageError("no such connection in this notebook; %connect FILE makes one")
        for session in chosen:
            display(session.budget())
