"""A private Jupyter server on loopback and one Chromium: notebooks are made from cells, opened, run and clicked."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat

FLAGS = [
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--force-color-profile=srgb",
]  # fmt: skip
CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
PATIENCE = 60_000  # ms: pages share two cores with other tests, and what does not come in that time does not come
SHOTS = Path(__file__).parents[2] / "demo-output" / "screenshots"


class Server:
    """JupyterLab, and Notebook 7 beside it, over ``folder``; its settings and kernels are its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder / "notebooks", secrets.token_hex(16)
        self.folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        places = {f"JUPYTER_{n}_DIR": str(folder / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")}
        places |= {f"JUPYTERLAB_{n}_DIR": str(folder / n.lower()) for n in ("SETTINGS", "WORKSPACES")}
        quiet(folder / "settings")
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
             "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.folder}",
             "--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"],
            env={**os.environ, **places}, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < end and self.process.poll() is None, (folder / "server.log").read_text()[-2000:]
                time.sleep(0.1)

    def close(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        self.process.kill()
        self.process.wait(5)
        self.log.close()


def quiet(settings: Path) -> None:
    """No question about news, and no look for updates."""
    place = settings / "@jupyterlab" / "apputils-extension"
    place.mkdir(parents=True)
    text = json.dumps({"fetchNews": "false", "checkForUpdates": False})
    (place / "notification.jupyterlab-settings").write_text(text)


class Notebook:
    """An open notebook in a page."""

    def __init__(
        self, page, server: Server, name: str, cells: list[str], kernel: str = "syft-lab-owner", app: str = "lab"
    ) -> None:
        self.page = page
        book = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(c) for c in cells],
            metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
        )
        nbformat.write(book, server.folder / name)
        place = f"lab/workspaces/{name.partition('.')[0]}/tree/{name}?reset&" if app == "lab" else f"notebooks/{name}?"
        page.goto(f"{server.url}/{place}token={server.token}")
        page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext")
        page.evaluate("""async () => { const p = window.jupyterapp.shell.currentWidget;
            await p.context.ready; await p.sessionContext.ready; await p.sessionContext.session.kernel.info; }""")
        self.theme(dark=False)

    def start(self, index: int) -> None:
        """Begin a cell, and wait until the kernel has it."""
        self.page.evaluate(
            """async i => { const app = window.jupyterapp, p = app.shell.currentWidget, nb = p.content;
            nb.activeCellIndex = i; nb.deselectAll(); app.commands.execute('notebook:run-cell'); }""",
            index,
        )

    def finish(self, index: int, timeout: float = 60) -> str:
        """Wait for a cell's end; gives the text of its outputs."""
        self.page.wait_for_function(
            """i => { const c = window.jupyterapp.shell.currentWidget.content.widgets[i];
            return c.model.executionCount !== null && c.model.executionState !== 'running'; }""",
            arg=index,
            timeout=timeout * 1000,
        )
        return self.text(index)

    def run(self, index: int, timeout: float = 60) -> str:
        self.start(index)
        return self.finish(index, timeout)

    def text(self, index: int) -> str:
        return self.page.evaluate(
            "i => window.jupyterapp.shell.currentWidget.content.widgets[i].outputArea?.node.innerText ?? ''", index
        )

    def busy(self, index: int) -> bool:
        """Whether a cell runs now."""
        return self.page.evaluate(
            "i => window.jupyterapp.shell.currentWidget.content.widgets[i].model.executionState === 'running'", index
        )

    def theme(self, dark: bool) -> None:
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        light = str(not dark).lower()
        self.page.wait_for_function("document.body.dataset.jpThemeLight")
        if self.page.evaluate("document.body.dataset.jpThemeLight") != light:
            self.page.evaluate(
                "async n => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme: n}); }", name
            )
        self.page.wait_for_function(
            f"document.body.dataset.jpThemeLight === '{light}' && !document.querySelector('#jupyterlab-splash')"
        )

    def shot(self, name: str, target=None) -> None:
        """Keep a picture, for people to look at."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        (target or self.page).screenshot(path=str(SHOTS / f"{name}.png"))


@contextlib.contextmanager
def taking_no_clicks(page, selector):
    """What is done meanwhile puts an entry above others in a list, whose buttons take no click in the moment after, and then do."""
    clicks = "getComputedStyle(document.querySelector(`${selector} button`)).pointerEvents"
    page.wait_for_function(f"selector => {clicks} === 'auto'", arg=selector)
    page.evaluate(
        f"""selector => {{
            const list = document.querySelector(selector), count = list.children.length;
            window.syftClicks = '';
            new MutationObserver((_, watch) => {{
                if (list.children.length === count) return;
                window.syftClicks = {clicks};
                watch.disconnect();
            }}).observe(list, {{ childList: true }});
        }}""",
        selector,
    )
    yield
    page.wait_for_function("window.syftClicks")
    assert page.evaluate("window.syftClicks") == "none"
    page.wait_for_function(f"selector => {clicks} === 'auto'", arg=selector)
