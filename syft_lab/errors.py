"""Every error of the package, in one tree.

    LabError
    ├── UsageError            an argument or a setting is wrong (also a ValueError)
    ├── QueryError            a query that can't be made private as it stands (also a ValueError)
    │   └── UnsupportedError  a pandas operation that a pointer does not have (also an AttributeError)
    ├── PrivateValueError     the value asked for is private
    │   └── PrivateSizeError  how many rows there are is private (also a TypeError)
    ├── RefusedOpError        an operation that pointers don't have
    ├── OtherOwnerError       values of two owners, or of two sessions, in one operation
    ├── StalePointerError     what a pointer stood for is gone; pointer.recompute() may bring it back
    ├── BudgetError           the question costs more than is left
    ├── RefusedError          the owner's policy or a role does not allow it
    ├── FailedError           the owner's kernel could not finish; its cost counts as spent
    ├── PartnerError          a partner in a federation is gone, late, or sent what the protocol does not have
    │   └── PartnerGoneError  it is gone: what it, or the third, says tells more
    ├── BusyError             the owner has too much to do just now; nothing was spent
    ├── NotYetError           what was waited for is not there yet; it goes on (also a TimeoutError)
    ├── SuspendedError        the owner's journal is older than what it signed; it releases nothing
    ├── VerificationError     a receipt, a journal, a signed head or a partner's offer does not check
    ├── StateError            the state folder: locked, made by a newer version, readable by others
    ├── WireError             bytes that are no message of the protocol
    └── ConnectError          no working connection
        ├── UnreachableError  nobody answers at the address
        ├── KeyMismatchError  somebody answers, but with another key, or ours is not known there
        ├── ProtocolError     the two sides speak different versions
        ├── InvitationError   the invitation is used, expired, revoked or damaged
        └── ConnectionLost    the connection broke while an answer was pending

A message says what happened, why, and what to do. None carries a private value: messages are built from what the
analyst sent and from what the owner published, never from rows. ``code`` is the name of the error on the wire.
"""

from __future__ import annotations

from syft_lab.printable import printable, printed


class LabError(Exception):
    """Base of all errors of Syft Lab. ``code`` names the class on the wire."""

    code = "error"

    @printed
    def __str__(self) -> str:
        return super().__str__()  # it may be the other side's text, and be printed anywhere

    @printed
    def __repr__(self) -> str:
        return super().__repr__()

    def _render_traceback_(self) -> list[str]:
        """IPython shows this instead of a traceback through our frames: one clear line."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(LabError, ValueError):
    """An argument or a setting is wrong."""

    code = "usage"


class QueryError(LabError, ValueError):
    """The query can't be made private as it stands; the message names the part."""

    code = "query"


class UnsupportedError(QueryError, AttributeError):
    """A pandas operation that a pointer does not have; the message names what there is."""

    code = "unsupported"


class PrivateValueError(LabError):
    """The value asked for is private; the message names the ways out. No TypeError: Python's operators swallow those."""

    code = "private"


class PrivateSizeError(PrivateValueError, TypeError):
    """How many rows there are is private. Also a TypeError, for which ``list(frame)`` goes on without a length."""

    code = "private-size"


class RefusedOpError(LabError):
    """An operation that pointers don't have; the message names the nearest that works."""

    code = "op"


class OtherOwnerError(LabError):
    """Values of two owners, or of two sessions, in one operation."""

    code = "owner"


class StalePointerError(LabError):
    """What a pointer stood for is gone: the owner's kernel, or the process that ran plans, was restarted."""

    code = "stale"


class BudgetError(LabError):
    """The question costs more than is left in an account or in the population's cap."""

    code = "budget"


class RefusedError(LabError):
    """The owner's policy, or the analyst's role, does not allow this."""

    code = "refused"


class FailedError(LabError):
    """The owner's kernel did not finish what it had begun; the cost of a query counts as spent.

    ``details`` tells how the same fared here on mocks, where that was tried.
    """

    code = "failed"

    def __init__(self, message: str = "", details: str = "") -> None:
        super().__init__(message)
        self.details = details

    def _render_traceback_(self) -> list[str]:
        return [*super()._render_traceback_(), *map(printable, self.details.split("\n") if self.details else ())]


class PartnerError(LabError):
    """A partner in a federation is gone, late, or sent what the protocol does not have; the run ended."""

    code = "partner"


class PartnerGoneError(PartnerError):
    """A partner is gone, or the connection to it broke. Where it left for a reason, it and the third partner know more."""

    code = "partner-gone"


class BusyError(LabError):
    """The owner has too many requests in hand; nothing was spent."""

    code = "busy"


class NotYetError(LabError, TimeoutError):
    """What was waited for did not come in time. It goes on: wait again."""

    code = "not-yet"


class SuspendedError(LabError):
    """The owner can't prove that its journal continues the one it signed, so it releases nothing."""

    code = "suspended"


class VerificationError(LabError):
    """A receipt, a journal, a signed head, or what a partner's kernel signed does not check."""

    code = "verification"


class StateError(LabError):
    """The state folder can't be used: locked, made by a newer version, or readable by others."""

    code = "state"


class WireError(LabError):
    """Bytes that are no message of the protocol."""

    code = "wire"


class ConnectError(LabError):
    """No working connection."""

    code = "connect"


class UnreachableError(ConnectError):
    """Nobody answers at the address."""

    code = "unreachable"


class KeyMismatchError(ConnectError):
    """Another key answers than the pinned one, or the owner does not know ours."""

    code = "key"


class ProtocolError(ConnectError):
    """The two sides speak different versions of the protocol."""

    code = "protocol"


class InvitationError(ConnectError):
    """The invitation is used, expired, revoked or damaged."""

    code = "invitation"


class ConnectionLost(ConnectError):
    """The connection broke while an answer was pending."""

    code = "lost"


def from_code(code: str, text: str) -> LabError:
    """The error that a peer named by ``code``; an unknown code gives the base class."""
    return _BY_CODE.get(code, LabError)(text)


def _tree(root: type[LabError]) -> list[type[LabError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


_BY_CODE = {kind.code: kind for kind in _tree(LabError)}
