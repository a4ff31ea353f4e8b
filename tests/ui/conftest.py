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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.failed = report.failed
    return report


@pytest.fixture
def page(window, server, request):
    opened = window.new_page()
    said = []
    opened.on("console", lambda line: said.append(f"{line.type}: {line.text[:300]}") if line.type == "error" else None)
    opened.on("pageerror", lambda fault: said.append(f"page error: {str(fault)[:300]}"))
    yield opened
    if getattr(request.node, "failed", False):
        print("\n".join(said[-20:]))
        print(_state(opened))
    opened.close()
    _end_kernels(server)


def _state(page):
    """What there is to see where a test failed, in words: no picture is kept where tests run unattended."""
    try:
        return page.evaluate("""() => {
            const widget = window.jupyterapp?.shell?.currentWidget, kernel = widget?.sessionContext?.session?.kernel;
            const texts = where => [...document.querySelectorAll(where)].map(n => n.innerText.slice(-600)).filter(Boolean);
            return JSON.stringify({
                visible: document.visibilityState, widget: widget?.title.label, status: kernel?.status, line: kernel?.connectionStatus,
                outputs: texts('.jp-OutputArea-output').slice(-6), notices: texts('.syft-Notice'), toasts: texts('.Toastify__toast'),
                panel: texts('#syft-lab-panel'), listed: document.querySelectorAll('.syft-Inbox-List > li').length,
                first: texts('.syft-Inbox-List > li').slice(0, 5), detail: texts('.syft-Inbox-Detail article > .syft-Head')
            }, null, 1); }""")
    except Exception as fault:
        return f"the page does not say what it shows: {type(fault).__name__}"


def _end_kernels(server):
    import json
    import urllib.request

    def ask(path, method="GET"):
        call = urllib.request.Request(f"{server.url}/api/{path}?token={server.token}", method=method)
        with urllib.request.urlopen(call, timeout=20) as reply:
            return json.loads(reply.read() or b"null")

    for session in ask("sessions"):
        ask(f"sessions/{session['id']}", "DELETE")
