"""`make lab`, as two people would use it: both notebooks side by side, a cell filed on the right, approved on the left."""

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

import pytest

from .jupyter import PATIENCE, SHOTS, quiet

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab_url(tmp_path, place):
    """The server that examples/lab.py starts, in a copy of the project's examples."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    quiet(tmp_path / "settings")
    env = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
           "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "examples/lab.py", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0",
             f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"],
            cwd=tmp_path, env=env, stdout=log, stderr=log,
        )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token={token}", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < end and process.poll() is None, (tmp_path / "log").read_text()[-2000:]
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/?token={token}"
        stop = urllib.request.Request(f"http://127.0.0.1:{port}/api/shutdown?token={token}", method="POST")
        urllib.request.urlopen(stop, timeout=30).close()
        process.wait(30)


RUN = """async ([name, from, to]) => {
  const app = window.jupyterapp, lab = Array.from(app.shell.widgets('main')).find(w => w.context?.path === name);
  await lab.context.ready; await lab.sessionContext.ready;
  while (app.shell.currentWidget !== lab) {
    app.shell.activateById(lab.id); lab.content.activate(); await new Promise(done => setTimeout(done, 50));
  }
  const cells = lab.content.widgets;
  for (let i = from; i < to; i++) {
    if (cells[i].model.type !== 'code') continue;
    lab.content.activeCellIndex = i; lab.content.deselectAll();
    await app.commands.execute('notebook:run-cell');
  }
  return cells.length; }"""
FIND = """([name, text]) => { const lab = Array.from(window.jupyterapp.shell.widgets('main')).find(w => w.context?.path === name);
  return lab.content.widgets.findIndex(c => c.model.sharedModel.getSource().includes(text)); }"""


def test_both_notebooks_stand_side_by_side_and_a_cell_is_approved_by_a_click(browser, lab_url):
    context = browser.new_context(viewport={"width": 1600, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    try:
        page.goto(lab_url)
        page.wait_for_function("window.jupyterapp && Array.from(window.jupyterapp.shell.widgets('main')).length >= 2")
        for name in ("owner.ipynb", "analyst.ipynb"):
            page.wait_for_function(
                "n => Array.from(window.jupyterapp.shell.widgets('main')).find(w => w.context?.path === n)?.sessionContext?.isReady",
                arg=name)  # fmt: skip
        boxes = [page.locator(".jp-NotebookPanel").nth(i).bounding_box() for i in range(2)]
        boxes.sort(key=lambda box: box["x"])  # whichever was opened first
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] + 8
        inbox = page.evaluate(FIND, ["owner.ipynb", "owner.inbox"])
        page.evaluate(RUN, ["owner.ipynb", 0, inbox + 1])
        page.get_by_text("it appears here at once").wait_for()
        remote = page.evaluate(FIND, ["analyst.ipynb", "%%remote"])
        page.evaluate(RUN, ["analyst.ipynb", 0, remote + 1])
        card = page.locator(".syft-panel [data-request='1']")
        card.get_by_text("imports sklearn").wait_for()
        card.get_by_role("button", name="Approve").click()
        card.get_by_role("button", name="Look at the result").click()
        card.get_by_text("What would leave").wait_for()
        page.get_by_label("inbox of requests").scroll_into_view_if_needed()
        page.get_by_label("state of a request").scroll_into_view_if_needed()
        page.locator("b", has_text="awaiting release").wait_for()
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(SHOTS / "lab.png"))
        card.get_by_role("button", name="Release").click()
        page.get_by_text("the values are here").wait_for()
        page.evaluate(RUN, ["analyst.ipynb", remote + 1, remote + 4])
        page.get_by_text("an exact value, by the owner's approval").first.wait_for()
    finally:
        context.close()
