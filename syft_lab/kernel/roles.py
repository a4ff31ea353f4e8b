"""Roles: named sets of rights. Whoever is invited has one; what a role lacks is refused, whatever the message says.

The owner is whoever holds the kernel or its state folder: that is no role, and nobody is invited to it. Results on real
data are looked at, released and withheld by the owner alone, so that nothing private travels to decide about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from syft_lab.errors import UsageError
from syft_lab.identity import check_name

OWNER = "owner"
RIGHTS: Mapping[str, str] = {
    "mock": "see schemas and mocks",
    "ask": "ask differentially private questions, at a budget",
    "file": "file code, and follow one's own requests",
    "read": "read all requests: code, reasons, runs on the mock, comments; no result",
    "approve": "approve and deny requests of others",
    "log": "read the journal and all budgets, and export them",
}
ROLES: Mapping[str, tuple[str, ...]] = {
    "analyst": ("mock", "ask", "file"),
    "guest": ("mock",),
    "steward": ("mock", "read", "approve"),
    "auditor": ("read", "log"),
}


def check_rights(name: str, rights: Sequence[str]) -> tuple[str, ...]:
    """The rights of a custom role, sorted; raises UsageError."""
    check_name(name, "the role's name")
    if name in (*ROLES, OWNER):
        raise UsageError(f"the role {name} is built in; choose another name")
    unknown = [r for r in rights if r not in RIGHTS]
    if isinstance(rights, str) or unknown or not rights:
        raise UsageError(f"a role is a list of these rights: {', '.join(RIGHTS)}")
    if "approve" in rights and "read" not in rights:
        raise UsageError("who approves must be able to read what is asked: add 'read'")
    return tuple(sorted(set(rights)))


def lacks(name: str, role: str, right: str) -> str:
    """What somebody reads who has not the right."""
    return f"{name} is {role} here, and may not {RIGHTS[right].split(':')[0].split(',')[0]}; ask the owner for another role"
