"""Tell another system that requests changed: one POST of JSON each, with numbers and states and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from syft_lab.errors import UsageError
from syft_lab.identity import read_secret, write_secret
from syft_lab.kernel.requests.rows import Row

SECONDS, TRIES, WAITING = 5.0, 3, 1000
STATES = (
    "filed",
    "partly",
    "approved",
    "denied",
    "review",
    "released",
    "withheld",
    "failed",
    "cancelled",
    "interrupted",
    "expired",
)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The address is where the owner said it is, and nowhere else."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


class Webhook:
    """Posts changes of requests from a thread of its own; what can't be delivered is dropped, and said."""

    def __init__(self, owner: str, path: Path, notify: Callable[[str], None]) -> None:
        self._owner, self._path, self._notify = owner, path, notify
        self._setting: dict[str, str] = read_secret(path) if path.exists() else {}
        self._queue: queue.Queue[dict[str, object] | None] = queue.Queue(WAITING)
        self._told: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._opener = urllib.request.build_opener(_NoRedirect)

    def set(self, address: str | None, secret: str | None) -> None:
        """Where to post; None ends it. Raises UsageError for what is no http address."""
        if address is None:
            self._setting = {}
            self._path.unlink(missing_ok=True)
            return
        parts = urlsplit(str(address))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("a webhook is an address that starts with https:// (or http:// on a network of your own)")
        self._setting = {"address": str(address), **({"secret": secret} if secret else {})}
        write_secret(self._path, self._setting)  # the address may hold a token

    def hear(self, row: Row) -> None:
        """A request changed: post its new state, once."""
        if not self._setting or row.state not in STATES or self._told.get(row.request) == row.state:
            return
        self._told[row.request] = row.state
        if self._thread is None:
            self._thread = threading.Thread(target=self._post_all, name="syft-webhook", daemon=True)
            self._thread.start()
        said = {"owner": self._owner, "request": row.number, "analyst": row.analyst, "state": row.state}
        try:
            self._queue.put_nowait(said)
        except queue.Full:
            self._notify("webhook: too many changes wait to be posted; one was dropped")

    def stop(self) -> None:
        """Post nothing more; idempotent."""
        self._ending.set()
        if self._thread is not None:
            with self._queue.mutex:
                self._queue.queue.clear()
            self._queue.put(None)
            self._thread.join(SECONDS + 1)

    def _post_all(self) -> None:
        while (said := self._queue.get()) is not None:
            setting = self._setting
            if not setting:
                continue
            for again in range(TRIES):
                why = self._post(setting, said)
                if not why or self._ending.wait(2.0**again):
                    break
            if why:
                self._notify(f"webhook: request {said['request']} could not be posted ({why})")

    def _post(self, setting: dict[str, str], said: dict[str, object]) -> str:
        body = json.dumps(said).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "syft-lab"}
        if "secret" in setting:
            headers["X-Syft-Signature"] = "sha256=" + hmac.new(setting["secret"].encode(), body, hashlib.sha256).hexdigest()
        asked = urllib.request.Request(setting["address"], body, headers, method="POST")  # noqa: S310 - http(s) was checked
        try:
            with self._opener.open(asked, timeout=SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return f"status {error.code}"
        except (OSError, ValueError) as error:
            return type(error).__name__
