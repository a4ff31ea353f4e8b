"""``%owner start|stop|status``: parses, and calls `Owner`."""

from __future__ import annotations

from IPython.core.magic import Magics, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from syft_lab.errors import UsageError
from syft_lab.kernel.owner import Owner
from syft_lab.widgets import route


@magics_class
class OwnerMagics(Magics):
    """The owner's magic. One owner a kernel."""

    owner: Owner | None = None

    @no_var_expand
    @line_magic("owner")
    @magic_arguments()
    @argument("action", choices=["start", "stop", "status"], help="what to do")
    @argument("name", nargs="?", help="the owner's name, for start")
    @argument("--listen", help="host:port to listen on (default: loopback, the port of the last time)")
    @argument("--device", help="where plans on tensors run: cpu (the default), cuda, cuda:0")
    @argument("--advertise", help="host:port that invitations give, if it differs")
    def run(self, line: str) -> None:
        """Host datasets in this kernel: ``%owner start hospital-a``. Binds ``owner``."""
        args = parse_argstring(self.run, line.partition(" #")[0])  # a comment may follow, as in Python
        {"start": self._start, "stop": self._stop, "status": self._status}[args.action](args)

    def _start(self, args: object) -> None:
        name = getattr(args, "name", None)
        if not name:
            raise UsageError("name the owner: %owner start hospital-a")
        if self.owner is not None and self.owner.running:
            if self.owner.name != name:
                raise UsageError(f"this kernel hosts {self.owner.name} already; %owner stop first")
            self._check_same(self.owner, args)
        else:
            listen, advertise = getattr(args, "listen", None), getattr(args, "advertise", None)
            self.owner = Owner.start(name, listen, advertise, getattr(args, "device", None) or "cpu")
            self.owner.warm()
        self.shell.user_ns["owner"] = self.owner
        kernel = getattr(self.shell, "kernel", None)
        if kernel is not None and (late := route.install(kernel)):
            print(late)
        self.owner.console.show()

    @staticmethod
    def _check_same(owner: Owner, args: object) -> None:
        """Raise UsageError where a running owner is asked to start somewhere else: its analysts are connected where it is."""
        runs = {"listen": owner.listens, "advertise": owner.address, "device": owner.device}
        for setting, now in runs.items():
            wanted = getattr(args, setting, None)
            if wanted not in (None, now):
                raise UsageError(f"{owner.name} runs already, with --{setting} {now}; to have it at {ascii(wanted)[:80]}, "
                                 f"%owner stop, then start it again so")  # fmt: skip

    def _stop(self, args: object) -> None:
        self._running().stop()

    def _status(self, args: object) -> None:
        self._running().console.show()

    def _running(self) -> Owner:
        if self.owner is None:
            raise UsageError("no owner runs in this kernel; %owner start NAME starts one")
        return self.owner
