"""For auditors: an owner's journal, fetched whole and checked here, entry by entry, against the keys that are pinned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from syft_lab import canonical, state, study
from syft_lab.errors import VerificationError, WireError
from syft_lab.identity import PublicKeys
from syft_lab.printable import printed
from syft_lab.receipt import LIMIT, Head
from syft_lab.report import COLUMNS, line, report

if TYPE_CHECKING:
    import pandas as pd


class Audit:
    """``session.audit``: each method fetches the journal anew, and raises VerificationError where it does not hold."""

    def __init__(self, owner: str, keys: PublicKeys, part: Callable[[int], bytes], held: Callable[[], Head | None]) -> None:
        self._owner, self._keys, self._part, self._held = owner, keys, part, held

    def _fetch(self) -> tuple[study.Study, list[bytes]]:
        lines: list[bytes] = []
        start = 0
        while True:
            lines.append(self._part(start))
            said = canonical.loads(lines[-1], limit=LIMIT)
            try:
                got, size = len(said["entries"]), said["head"]["size"]
            except (KeyError, TypeError):
                raise WireError("what the owner sent is no log; tell the owner") from None
            if not got:
                raise WireError("the owner sent less of its log than it signed; tell the owner")
            start += got
            if start >= size:
                break
        found = study.parse(lines)
        found.verify(self._keys)
        held = self._held()
        if held is not None and (held.size > len(found.leaves) or study.root(found.leaves[: held.size]) != held.root):
            raise VerificationError(f"{self._owner}'s journal does not continue the one it signed for you; tell the owner")
        return found, lines

    def verify(self) -> Head:
        """Check hashes, order, signature, and that the journal continues the one seen before; gives its head."""
        return self._fetch()[0].head

    def log(self) -> pd.DataFrame:
        """The journal as a table: entry, time, kind, analyst, dataset, what was asked, ε."""
        import pandas as pd

        rows = [line(e["seq"], e["time"], e["kind"], e["body"]) for e in self._fetch()[0].said()]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def report(self) -> str:
        """For a compliance officer, in Markdown: who asked what and why, who approved, what left, at what cost."""
        return report(self._owner, self._fetch()[0].said())

    def export(self, path: str | Path) -> Path:
        """Write the journal to a file that `syft-lab verify` checks offline."""
        path = Path(path)
        lines = self._fetch()[1]
        with state.given(path) as out:
            out.writelines(line + b"\n" for line in lines)
        return path

    @printed
    def __repr__(self) -> str:
        return f"Audit of {self._owner}: verify(), log(), report(), export(path)"
