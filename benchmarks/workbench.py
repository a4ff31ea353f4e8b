"""The workbench in Chromium: how soon its panel opens, frames while a kernel has much to tell, what it costs when idle."""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import syft_lab
from benchmarks.measure import Row

PANEL = "syft-lab-panel"
HOST = """
%load_ext syft_lab
%owner start bench
import pandas as pd, syft_lab as lab, os
owner.publish(pd.DataFrame({"age": range(100)}), "patients", privacy_unit="row", bounds={"age": (0, 110)}, budget=lab.Budget(3))
print(os.getpid())
"""
EVENTS = """
import time
begun = time.monotonic()
for i in range(5000):
    owner.console.say(f"event {i}")
    while time.monotonic() < begun + i / 1000: time.sleep(0.0005)
print(round(5000 / (time.monotonic() - begun)))
"""
# Every frame: its pace is the page's, whatever else it does.
FRAMES = """seconds => new Promise(done => { let n = 0; const begun = performance.now();
    const one = now => { n += 1; if (now - begun < seconds * 1000) requestAnimationFrame(one); else done(n / seconds); };
    requestAnimationFrame(one); })"""
OPEN = """async () => { const app = window.jupyterapp; app.shell.collapseLeft(); await new Promise(r => setTimeout(r, 300));
    const begun = performance.now(); await app.commands.execute('syft-lab:show');
    while (!document.querySelector('#syft-lab-panel article')) await new Promise(r => setTimeout(r, 2));
    await new Promise(r => requestAnimationFrame(() => setTimeout(r))); return performance.now() - begun; }"""
FILES = """async () => { const app = window.jupyterapp; app.shell.collapseLeft(); await new Promise(r => setTimeout(r, 300));
    const begun = performance.now(); app.shell.activateById('filebrowser');
    while (!document.querySelector('#filebrowser .jp-DirListing-item')?.offsetParent) await new Promise(r => setTimeout(r, 2));
    await new Promise(r => requestAnimationFrame(() => setTimeout(r))); return performance.now() - begun; }"""


def _ticks(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _idle(page: Any, pid: int, seconds: int) -> float:
    """Percent of one core that a kernel takes while nothing happens."""
    before = _ticks(pid)
    page.wait_for_timeout(seconds * 1000)
    return 100 * (_ticks(pid) - before) / seconds


def run(rounds: int = 1) -> list[Row]:
    from playwright.sync_api import sync_playwright

    from tests.ui.jupyter import CHROMIUM, FLAGS, Notebook, Server

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        server = Server(Path(folder))
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS, headless=True)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 960})
            book = Notebook(page, server, "bench.ipynb", ["import os\nprint(os.getpid())", HOST, EVENTS], kernel="python3")
            pid = int(book.run(0).split()[-1])
            plain = _idle(page, pid, 20 * rounds)
            book.run(1)
            page.evaluate("() => window.jupyterapp.commands.execute('syft-lab:show')")
            page.locator(f"#{PANEL} article").wait_for(timeout=30_000)
            idle = _idle(page, pid, 20 * rounds)
            opened = [(page.evaluate(OPEN), page.evaluate(FILES)) for _ in range(5 * rounds)]
            page.evaluate("() => window.jupyterapp.commands.execute('syft-lab:show')")
            page.get_by_role("button", name="Log").click()
            still = page.evaluate(FRAMES, 3)
            book.start(2)
            page.wait_for_timeout(500)
            busy = page.evaluate(FRAMES, 3)
            rate = int(book.finish(2).split()[-1])
            page.get_by_text("event 4999").first.wait_for(timeout=10_000)
        finally:
            browser.close()
            server.close()
    ours, files = (statistics.median(o[i] for o in opened) for i in (0, 1))
    static = Path(syft_lab.__file__).parent / "labextension" / "static"
    size = sum(p.stat().st_size for p in static.glob("*.js")) / 1000
    return [
        Row("workbench: its panel opens", ours, files, "ms", "JupyterLab's file browser", "a frame", "≤ 300 ms", ours <= 300),
        Row(f"frames while it is told {rate} events/s", busy, still, "per s", "the same page, idle", "the screen's pace",
            "≥ 30/s", busy >= 30 and rate >= 900),
        Row("its scripts", size, 300, "kB", "the mark", "none", "≤ 300 kB", size <= 300),
        Row("kernel with the panel open, idle", idle, plain, "% CPU", "the same kernel before syft_lab", "none", "≤ +1 %",
            idle - plain <= 1),
    ]  # fmt: skip
