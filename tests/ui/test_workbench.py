"""The workbench around the notebooks, as two people use it: an owner's window and an analyst's, from nothing to an answer."""

import json
import re
import time
from pathlib import Path

import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.identity import Keys
from syft_lab.partnership import Member, Partnership

from .jupyter import PATIENCE, Notebook, taking_no_clicks
from .test_widgets import CODE, PUBLISH, TABLE, cell, host, item

AXE = Path(__file__).parents[2] / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
QUESTION = "print(patients.age.sum().release(epsilon=0.25).value > 0)"
LONG = "admissions-of-the-year-2024-with-a-name-as-long-as-names-may-be"
HEBREW = "מחקר על אשפוזים חוזרים"


def panel(page):
    return page.locator("#syft-lab-panel")


def show(page):
    page.evaluate("() => window.jupyterapp.commands.execute('syft-lab:show')")
    panel(page).wait_for()


def clean(page, inside: str) -> None:
    """Nothing that axe-core finds wrong in what we draw."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make installs it with the workbench")
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("async where => (await axe.run(where, {resultTypes: ['violations']})).violations"
                          ".map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 200)).join(' | '))", inside)  # fmt: skip
    assert found == []


@pytest.fixture(scope="module")
def elsewhere(browser):
    """A second person's browser, whose scripts are loaded once too."""
    context = browser.new_context(viewport={"width": 1280, "height": 960})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def other(elsewhere):
    """A second person's window."""
    opened = elsewhere.new_page()
    yield opened
    opened.close()


def test_two_people_from_empty_notebooks_to_a_released_answer(page, other, server, place):
    file = place / "clinic-a.syft"
    publish = PUBLISH.replace('"patients", population', f"{'patients'!r}, tags=['oncology', 'study 12'], population")
    publish += '\nowner.policy.allow("dp", dataset="patients", epsilon_per_query=0.5)'
    owner = Notebook(page, server, "their-data.ipynb", ["", f"FILE = {str(file)!r}\n" + TABLE + publish, "1"], kernel="python3")
    show(page)
    panel(page).get_by_text("has not loaded Syft Lab").wait_for()
    owner.shot("panel-without-syft-lab")
    panel(page).get_by_role("button", name="Load Syft Lab").click()
    panel(page).get_by_role("button", name="Host data here").click()
    page.evaluate("() => { const c = window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel;"
                  " c.setSource(c.getSource().replace('my-hospital', 'clinic-a')); }")  # fmt: skip
    owner.run(0)
    panel(page).get_by_role("article", name="owner clinic-a").wait_for()
    owner.run(1)
    panel(page).get_by_role("region", name="Datasets").get_by_text("patients").wait_for()

    analyst = Notebook(
        other, server, "my-study.ipynb", [f"%load_ext syft_lab\n%connect {file}", "", "", QUESTION], kernel="python3"
    )
    show(other)
    analyst.run(0)
    mine = panel(other).get_by_role("article", name="connection to clinic-a")
    mine.get_by_text(re.compile(r"connected, [\d.]+ ms")).wait_for()
    panel(page).get_by_text("analyst, connected").wait_for()
    mine.get_by_label("schema of patients").click()
    mine.get_by_text("er, icu, ward").wait_for()
    analyst.shot("panel-analyst-datasets")
    other.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
    mine.get_by_role("button", name="patients", exact=True).click()
    assert "age" in analyst.run(1)
    panel(other).get_by_role("article", name="pointers").get_by_text("patients v1, all rows").wait_for()

    other.evaluate("code => { const b = window.jupyterapp.shell.currentWidget.content; b.activeCellIndex = 2;"
                   " b.activeCell.model.sharedModel.setSource(code); }", CODE)  # fmt: skip
    other.evaluate("() => window.jupyterapp.commands.execute('syft-lab:convert')")
    first = other.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource().split('\\n')[0]"
    )
    assert first == '%%remote clinic_a --use patients --return by_ward --reason ""'
    other.evaluate("() => { const m = window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel;"
                   " m.setSource(m.getSource().replace('\"\"', '\"readmissions by ward, study 12\"')); }")  # fmt: skip
    tag = other.locator(".syft-Tag")
    tag.get_by_text("clinic-a · not filed").wait_for()
    other.evaluate("() => window.jupyterapp.commands.execute('syft-lab:dry-run')")
    other.get_by_text("nothing was asked of the owner").wait_for()
    assert panel(page).locator("[data-request]").count() == 0
    analyst.run(2)
    tag.get_by_text(re.compile("request 1, (filed|seen)")).wait_for()
    analyst.shot("remote-cell")

    waits = panel(page).locator("[data-request='1']")
    waits.get_by_text("readmissions by ward, study 12").wait_for()
    page.get_by_text("Request 1 from alice waits for you").first.wait_for()
    owner.shot("panel-owner-light")
    waits.get_by_role("button", name="Look").click()
    inbox = page.get_by_role("article", name="request 1")
    inbox.get_by_text("imports sklearn").wait_for()
    inbox.locator(".cm-line", has_text="LogisticRegression().fit").wait_for()
    owner.shot("inbox-wide-light")
    clean(page, ".syft-Inbox")
    clean(page, "#syft-lab-panel")
    page.locator(".syft-Inbox-List").focus()
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    inbox.get_by_role("button", name="Look at the result").wait_for()
    page.locator(".syft-Inbox-List").focus()
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    inbox.get_by_text("What would leave").wait_for()
    owner.shot("inbox-wide-result")
    page.locator(".syft-Inbox-List").focus()
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    other.get_by_text("Request 1 at clinic-a: released").first.wait_for()
    tag.get_by_text("request 1, released").wait_for()
    analyst.shot("panel-analyst-light")
    clean(other, "#syft-lab-panel")
    analyst.run(3)  # a question under differential privacy: no click, a little of the budget
    mine.get_by_role("img", name="clinic-2024: ε spent 0.25, reserved 0, left 0.75 of 1").wait_for()
    other.locator(".syft-Status", has_text="ε 0.75 left").wait_for()
    for book, window, name in ((owner, page, "owner"), (analyst, other, "analyst")):
        book.theme(dark=True)
        book.shot(f"panel-{name}-dark", panel(window))
        clean(window, "#syft-lab-panel")
    owner.shot("inbox-wide-dark")
    clean(page, ".syft-Inbox")
    page.evaluate(
        "async () => { for (const w of window.jupyterapp.shell.widgets('main')) if (w.context) await w.context.save(); }"
    )
    assert "What would leave" not in (server.folder / "their-data.ipynb").read_text()


def test_the_panel_follows_notebooks_restarts_reloads_and_a_second_tab(page, other, server, place):
    book = Notebook(page, server, "follow.ipynb", ["%load_ext syft_lab\n%owner start follow-a", "1 + 1"], kernel="python3")
    show(page)
    book.run(0)
    here = panel(page).get_by_role("article", name="owner follow-a")
    here.wait_for()
    # a second notebook, whose kernel has not loaded it: the panel follows, and comes back
    page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:create-new', {kernelName: 'python3'}); }")
    panel(page).get_by_text("has not loaded Syft Lab").wait_for()
    page.evaluate("""() => { const app = window.jupyterapp;
        for (const w of app.shell.widgets('main')) if (w.context?.path === 'follow.ipynb') app.shell.activateById(w.id); }""")
    here.wait_for()
    # a second tab, on the same kernel
    other.goto(f"{server.url}/lab/workspaces/second/tree/follow.ipynb?reset&token={server.token}")
    other.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel")
    show(other)
    panel(other).get_by_role("article", name="owner follow-a").wait_for()
    # reload of the page while a cell runs
    book.start(1)
    page.evaluate("""() => { const b = window.jupyterapp.shell.currentWidget.content;
        b.activeCell.model.sharedModel.setSource('import time\\nfor _ in range(400): time.sleep(0.1)'); }""")
    book.start(1)
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.save(); }")
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'")
    page.goto(f"{server.url}/lab/workspaces/follow/tree/follow.ipynb?token={server.token}")
    page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel")
    show(page)
    here.wait_for()
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    # restart: nothing is hosted until it is loaded again
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }")
    panel(page).get_by_text("has not loaded Syft Lab").wait_for()
    panel(other).get_by_text("has not loaded Syft Lab").wait_for()
    book.run(0)
    here.wait_for()
    panel(other).get_by_role("article", name="owner follow-a").wait_for()
    # the kernel is gone
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown(); }")
    panel(page).get_by_text(re.compile("Open a notebook|kernel is gone")).wait_for()
    book.shot("panel-kernel-gone")


def test_what_a_broken_connection_lost_is_shown_when_it_is_back(page, server, place):
    lost, sockets, losing = [], [], []

    def between(socket):
        kernel = socket.connect_to_server()
        sockets.append(socket)

        def pass_on(said):
            frames = said if isinstance(said, bytes) else said.encode()
            (lost.append if losing and b'"view"' in frames and b"robert" in frames else socket.send)(said)

        kernel.on_message(pass_on)

    page.route_web_socket(re.compile("/api/kernels/.*/channels"), between)
    cells = ["%load_ext syft_lab\n%owner start breaks", "robert = owner.invite('robert')"]
    book = Notebook(page, server, "breaks.ipynb", cells, kernel="python3")
    show(page)
    book.run(0)
    here = panel(page).get_by_role("article", name="owner breaks")
    here.get_by_role("button", name="Log").click()
    losing.append(True)
    book.run(1)
    late = time.monotonic() + PATIENCE / 1000
    while not lost and time.monotonic() < late:
        page.wait_for_timeout(50)  # Playwright hands on what sockets say while it waits
    assert lost
    assert "robert" not in here.inner_text()
    losing.clear()
    sockets[-1].close()
    here.get_by_text("robert").first.wait_for()
    assert len(sockets) > 1


MANY = """
import secrets, threading
from syft_lab import canonical
from syft_lab.cell import Cell
from syft_lab.kernel.registry import Analyst
for i in range(500):
    who = Analyst(f"analyst-{i % 10}", "analyst", (NAME,), owner.keys.public, "active")
    asked = Cell(f"import math\\ncoef = {i}", ((NAME, 1),), ("coef",), {}, REASON if i == 499 else f"reason {i}")
    row = owner._desk.file(who, secrets.token_hex(16), canonical.dumps(asked.to_json()))
    owner._desk._shelf.note(row.request, "mock", {"why": "", "log": "", "error": None, "seconds": 0.1, "peak": 0, "touched": {},
                                                  "outputs": [], "grows": []})
changed = threading.Event()
owner._desk.on_change.append(lambda _: changed.set())
while not all(r.checked for r in owner.requests): changed.wait(1); changed.clear()  # the kernel has time again
"""


# A busy page tells an observer of several changes at once; here each page does.
LATE_OBSERVERS = """window.IntersectionObserver = class extends window.IntersectionObserver {
    constructor(heard, options) {
        const kept = [];
        super((entries, self) => {
            if (kept.push(...entries) === entries.length) setTimeout(() => heard(kept.splice(0), self), 300);
        }, options);
    }
}; null"""


def test_five_hundred_requests_long_names_and_text_from_right_to_left(page, server, place):
    reason = HEBREW + " \u202e" + "w" * 300
    start = (f"import os; os.environ['SYFT_LAB_ISOLATION'] = 'L0'\n%load_ext syft_lab\nNAME, REASON = {LONG!r}, {reason!r}\n"
             "%owner start owner-with-a-name-that-is-as-long-as-names-may-be\n" + TABLE
             + PUBLISH.replace('"patients", population', "NAME, population").replace("path=FILE", "path='many2.syft'"))  # fmt: skip
    book = Notebook(
        page, server, "many-requests.ipynb", [start, MANY, "owner.inbox", "print(owner.requests)"], kernel="python3"
    )
    show(page)
    book.run(0)
    book.start(1)
    page.get_by_text("requests wait for you").first.wait_for()
    assert page.locator(".Toastify__toast").count() <= 2  # one note, not five hundred
    book.finish(1, timeout=120)
    page.evaluate(LATE_OBSERVERS)
    took = page.evaluate("""async () => {
        const app = window.jupyterapp, nb = app.shell.currentWidget.content, begun = performance.now();
        nb.activeCellIndex = 2; nb.deselectAll(); app.commands.execute('notebook:run-cell');
        const until = async (there) => { while (!there()) await new Promise((r) => setTimeout(r, 5)); };
        const cards = () => document.querySelectorAll('.syft-open > article');
        await until(() => cards().length && cards()[0].querySelector('.tok-keyword'));
        await new Promise((r) => requestAnimationFrame(() => setTimeout(r)));  // it is painted
        const opened = performance.now() - begun;
        await until(() => cards().length === 500);
        return [opened, performance.now() - begun]; }""")
    print(f"opened in {took[0]:.0f} ms, all 500 cards in {took[1]:.0f} ms")
    assert page.locator(".syft-brief").count() > 400
    last = item(page, 1)
    page.evaluate("document.querySelector(\"[data-request='1']\").scrollIntoView()")
    last.get_by_role("button", name="Approve").wait_for()
    last.locator(".tok-keyword").first.wait_for()
    book.shot("inbox-500", page)
    assert book.run(3).strip().endswith("… and 440 more: owner.requests[60:]")
    waits = panel(page).get_by_role("list", name="requests that wait for you")
    waits.get_by_text(HEBREW).wait_for()
    assert "\u202e" not in waits.inner_text()
    assert waits.locator("li").count() == 8
    panel(page).get_by_label(f"schema of {LONG}").click()
    page.evaluate("() => { document.querySelector('#syft-lab-panel .syft-Scroll').scrollTop = 0; }")
    book.shot("panel-500-long", panel(page))
    clean(page, "#syft-lab-panel")
    assert panel(page).evaluate("n => n.scrollWidth <= n.clientWidth + 1"), "nothing is wider than the panel"
    page.evaluate("() => window.jupyterapp.commands.execute('syft-lab:inbox')")
    listed = page.locator(".syft-Inbox-List > li")
    page.wait_for_function("document.querySelectorAll('.syft-Inbox-List > li').length === 500", polling=100)
    page.get_by_role("article", name="request 500").wait_for()
    page.locator(".syft-Inbox-List").focus()
    for key in "xjxjx":
        page.keyboard.press(key)
    page.get_by_role("article", name="request 498").wait_for()
    book.shot("inbox-wide-500")
    bulk = page.get_by_role("group", name="chosen requests")
    bulk.get_by_role("button", name="Approve 3 chosen").wait_for()
    bulk.get_by_label("reason for all denials").fill("not this month")
    bulk.get_by_role("button", name="Deny them").click()
    page.locator(".syft-Inbox-Detail .syft-Notice", has_text="3 requests denied").wait_for()
    page.wait_for_function("document.querySelectorAll('.syft-Inbox-List > li').length <= 498", polling=100)
    page.get_by_role("article", name="request 498").wait_for()  # what was just decided stays until one goes on
    page.locator(".syft-Inbox-List").focus()
    page.keyboard.press("j")
    page.get_by_role("article", name="request 497").wait_for()
    page.wait_for_function("document.querySelectorAll('.syft-Inbox-List > li').length === 497", polling=100)
    page.set_viewport_size({"width": 700, "height": 900})
    book.shot("inbox-wide-narrow")
    book.theme(dark=True)
    book.shot("inbox-wide-narrow-dark")
    assert listed.first.is_visible()


def test_the_wide_inbox_shows_what_changed_and_the_plot_what_was_spent(page, server, place):
    spend = ("owner.policy.allow('dp', dataset='patients', epsilon_per_query=0.5)\n%connect {}\n"
             "for e in (0.1, 0.2, 0.3): differ['patients'].age.sum().release(epsilon=e).value").format(place / "differ.syft")  # fmt: skip
    book = Notebook(page, server, "differ.ipynb", [host("differ", place), spend])
    show(page)
    book.run(0)
    book.run(1)
    with lab.connect(place / "differ.syft") as session:
        first = session.file(cell(reason="first version"))
        item = page.get_by_role("article", name="request 1")
        page.evaluate("() => window.jupyterapp.commands.execute('syft-lab:inbox')")
        item.get_by_text("imports sklearn").wait_for()
        session.file(cell(CODE.replace("model.coef_,", "model.coef_ * 2,"), reason="doubled"), follows=first.number)
        page.locator("#syft-request-2").wait_for()
        assert item.is_visible(), "a newer request takes no reader's place"
        page.locator("#syft-request-2").click()
        second = page.get_by_role("article", name="request 2")
        second.get_by_text("what changed since request 1 is marked").wait_for()
        second.locator(".cm-changedLine", has_text="coef_ * 2").wait_for()
        second.locator(".cm-deletedChunk").wait_for()
        book.shot("inbox-wide-diff")
        clean(page, ".syft-Inbox")
        second.get_by_role("button", name="Why not by itself?").click()
        second.get_by_label("what the policy says").wait_for()
        page.locator(".syft-Inbox-List").focus()
        page.keyboard.press("c")
        page.keyboard.type("why doubled?")
        page.keyboard.press("Enter")
        second.get_by_text("why doubled?").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("d")
        page.keyboard.type("one version is enough")
        page.keyboard.press("Enter")
        second.get_by_text("denied by owner").wait_for()
        partners = [
            Member(n, *(Keys.generate().public.signing for _ in "ab")) for n in ("a-clinic-with-quite-a-long-name", "bank-c")
        ]
        session.propose(
            Partnership((Member("differ", session.signing, session.own_signing), *partners), "readmissions over three places")
        )
        page.locator("#syft-request-3").click()
        third = page.get_by_role("article", name="request 3")
        third.get_by_text("one alone learns nothing").wait_for()
        book.shot("inbox-wide-partnership")
        clean(page, ".syft-Inbox")
        third.get_by_role("button", name="Take part").click()
        third.get_by_role("button", name="Leave the federation").click()
        third.get_by_text("you no longer take part").wait_for()
        panel(page).get_by_role("button", name="3 · partnership").wait_for()
    page.evaluate("() => window.jupyterapp.commands.execute('syft-lab:history')")
    plot = page.get_by_role("img", name="clinic-2024: ε 0.6 of 3 spent in 3 questions")
    plot.locator(".main-svg").first.wait_for()
    page.get_by_text("as a table").click()
    page.get_by_role("cell", name="0.6").wait_for()
    book.shot("spent-light")
    clean(page, ".syft-History")
    book.theme(dark=True)
    plot.locator(".main-svg").first.wait_for()
    book.shot("spent-dark")


def the_launcher_settings_and_palette_know_of_it(page, book):
    page.evaluate("() => { window.jupyterapp.commands.execute('launcher:create'); }")
    cards = page.locator(".jp-LauncherCard", has_text=re.compile("Host data|Connect to an owner"))
    cards.nth(1).wait_for()
    assert cards.count() == 2
    book.shot("launcher")
    cards.first.click()
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.content?.widgets?.[0]?.model?.sharedModel?.getSource()"
                           ".includes('%owner start')")  # fmt: skip
    labels = page.evaluate("""() => window.jupyterapp.commands.listCommands().filter(c => c.startsWith('syft-lab:'))
        .map(c => window.jupyterapp.commands.label(c))""")
    assert len(labels) == 7
    assert all(labels)
    saved = page.evaluate("async () => (await window.jupyterapp.serviceManager.settings.fetch('syft-lab:plugin')).schema.title")
    assert saved == "Syft Lab"


def test_the_buttons_of_the_panel_do_what_they_say_and_the_launcher_has_cards(page, server, place):
    connect = f"%connect {place / 'buttons.syft'}\ntable = buttons['patients']"
    book = Notebook(page, server, "buttons.ipynb", [host("buttons", place), connect], kernel="syft-lab-owner")
    show(page)
    book.run(0)
    book.run(1)
    slow = "import time\nif len(patients) > 200: time.sleep(120)\nm = 1"
    with lab.connect(place / "buttons.syft") as session:
        asked = [session.file(cell(slow if i == 0 else f"m = {i}", ["m"], f"reason {i}")) for i in range(4)]
        owner = panel(page).get_by_role("article", name="owner buttons")
        waits = owner.get_by_role("list", name="requests that wait for you").locator("li")
        waits.nth(3).wait_for()
        with taking_no_clicks(page, '[aria-label="requests that wait for you"]'):
            session.file(cell("m = 4", ["m"], "one that comes in above the others"))
        waits.filter(has_text="reason 0").get_by_role("button", name="Approve").click()
        job = owner.get_by_role("list", name="running jobs").locator("li", has_text="1 · alice")
        job.get_by_text("running", exact=True).wait_for()
        book.shot("panel-jobs", panel(page))
        job.get_by_role("button", name="Cancel").click()
        with pytest.raises(errors.RefusedError, match="cancelled"):
            asked[0].results["m"].get(30)
        second = waits.filter(has_text="reason 1")
        second.get_by_role("button", name="Deny…").click()
        page.keyboard.type("too few people")
        page.keyboard.press("Enter")
        with pytest.raises(errors.RefusedError, match="too few people"):
            asked[1].results["m"].get(30)
        owner.get_by_role("button", name="Log").click()
        owner.get_by_role("button", name="Verify the journal").click()
        panel(page).get_by_text("The journal holds").wait_for()
        mine = panel(page).get_by_role("article", name="connection to buttons")
        third = mine.get_by_role("list", name="requests at buttons").locator("li", has_text="reason 2")
        third.get_by_role("button", name="Cancel").click()
        with pytest.raises(errors.RefusedError, match="cancelled"):
            asked[2].results["m"].get(30)
        held = panel(page).get_by_role("article", name="pointers")
        held.get_by_role("button", name="Free").click()
        held.wait_for(state="detached")
    the_launcher_settings_and_palette_know_of_it(page, book)


def test_in_notebook_7_cells_are_marked_and_the_panel_opens(page, server, place):
    cells = ["%load_ext syft_lab\n%owner start seven-a", "%%remote seven_a --use t --return x\nx = 1"]
    book = Notebook(page, server, "seven.ipynb", cells, kernel="python3", app="notebook")
    page.locator(".syft-Tag", has_text="seven_a · not connected here").wait_for()
    book.run(0)
    page.evaluate("() => window.jupyterapp.commands.execute('syft-lab:show')")
    panel(page).get_by_role("article", name="owner seven-a").wait_for()
    book.shot("panel-notebook-7")


def test_the_bundle_is_small():
    static = Path(lab.__file__).parent / "labextension" / "static"
    total = sum(p.stat().st_size for p in static.glob("*.js"))
    print(f"bundle: {total} bytes")
    assert 0 < total <= 300_000
    assert json.loads((static.parent / "package.json").read_text())["name"] == "syft-lab"
