"""One server and one browser for all tests of what is seen; each test has a page and a state folder of its own."""

import pytest

from .jupyter import CHROMIUM, FLAGS, PATIENCE, Server

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make installs it")


@pytest.fixture(scope="package")
def place(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: sudo apt-get install chromium")
    folder = tmp_path_factory.mktemp("ui")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYFT_LAB_HOME", str(folder / "state"))
        yield folder


@pytest.fixture(scope="package")
def server(place):
    running = Server(place)
    yield running
    running.close()


@pytest.fixture(scope="package")
def play(place):
    with sync_api.sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def browser(play):
    running = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS, headless=True)
    yield running
    running.close()


@pytest.fixture(scope="package")
def window(play, tmp_path_factory):
    """One for all tests, with a profile on disk: JupyterLab's scripts are loaded, and compiled, once."""
    profile = tmp_path_factory.mktemp("profile")
    context = play.chromium.launch_persistent_context(
        profile, executable_path=CHROMIUM, args=FLAGS, headless=True, viewport={"width": 1280, "height": 960}
    )
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(window, server):
    opened = window.new_page()
    yield opened
    opened.close()
    _end_kernels(server)


def _end_kernels(server):
    import json
    import urllib.request

    def ask(path, method="GET"):
        call = urllib.request.Request(f"{server.url}/api/{path}?token={server.token}", method=method)
        with urllib.request.urlopen(call, timeout=20) as reply:
            return json.loads(reply.read() or b"null")

    for session in ask("sessions"):
        ask(f"sessions/{session['id']}", "DELETE")
