"""Every widget, clicked in Chromium while a cell runs; pictures are kept in demo-output/screenshots."""

import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.cell import Cell

from .jupyter import Notebook, taking_no_clicks

BUSY = "import time\nfor _ in range(600): time.sleep(0.1)\nprint('slept')"
TABLE = """
import numpy as np, pandas as pd, syft_lab as lab
draw = np.random.default_rng(0)
patients = pd.DataFrame({"age": draw.integers(18, 90, 5000), "los_days": draw.random(5000) * 9,
                         "ward": draw.choice(["er", "icu", "ward"], 5000), "readmitted": draw.random(5000) < 0.3})
"""
PUBLISH = """
owner.publish(patients, "patients", population="clinic-2024", privacy_unit="row", description="Admissions 2024",
              bounds={"age": (0, 110), "los_days": (0, 60)}, categories={"ward": ["er", "icu", "ward"]}, budget=lab.Budget(3))
owner.invite("alice", budgets={"clinic-2024": 1.0}, path=FILE);
"""
CODE = """from sklearn.linear_model import LogisticRegression

def fit(table):  # a comment
    X, y = table[["age", "los_days"]], table["readmitted"]
    return LogisticRegression().fit(X, y), X, y

model, X, y = fit(patients)
coef, score = model.coef_, model.score(X, y)
by_ward = patients.groupby("ward")["los_days"].mean()
"""
HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\u202ekcab\x1b[31m \u0430dmin'


def cell(code=CODE, returns=("coef", "score", "by_ward"), reason="readmission model, study 12", **params):
    return Cell(code, (("patients", 1),), tuple(returns), params, reason)


def host(name: str, place: Path) -> str:
    file = str(place / f"{name}.syft")
    return f"%owner start {name}\nFILE = {file!r}\n" + TABLE + PUBLISH


def item(page, number: int):
    return page.locator(f".syft-panel [data-request='{number}']")


def note(page, text: str):
    """A note in the corner: JupyterLab's own, or where it has none, a widget's."""
    return page.locator(".syft-toast, .Toastify__toast", has_text=text).first


@pytest.mark.parametrize("app", ["lab"])
def test_the_inbox_decides_while_a_cell_runs(page, server, place, app):
    name = f"hospital-{app}"
    book = Notebook(page, server, f"inbox-{app}.ipynb", [host(name, place), "owner.inbox", BUSY, "print('free')"], app=app)
    book.run(0)
    book.start(1)
    page.get_by_text("it appears here at once").wait_for()
    book.shot(f"inbox-{app}-empty")
    with lab.connect(place / f"{name}.syft") as session:
        book.start(2)
        page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'")
        asked = session.file(cell(age=65))
        refused = session.file(cell("x = patients.head(50)", ["x"], "to see some rows"))
        item(page, 2).get_by_text("waits for you").wait_for()
        item(page, 1).get_by_text("imports sklearn").wait_for()
        inbox = page.get_by_label("inbox of requests")
        book.shot(f"inbox-{app}-light", inbox)
        book.theme(dark=True)
        book.shot(f"inbox-{app}-dark", inbox)
        page.set_viewport_size({"width": 720, "height": 960})
        book.shot(f"inbox-{app}-narrow", inbox)
        page.set_viewport_size({"width": 1280, "height": 960})
        book.theme(dark=False)
        item(page, 1).get_by_role("button", name="Approve").click()
        field = item(page, 2).get_by_label("reason for a denial")
        field.focus()
        page.keyboard.type("rows do not leave")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # the keyboard alone
        with pytest.raises(errors.RefusedError, match="rows do not leave"):
            refused.results["x"].get(20)
        look = item(page, 1).get_by_role("button", name="Look at the result")
        look.wait_for()
        assert item(page, 1).get_by_role("button", name="Release").is_disabled()
        look.click()
        item(page, 1).get_by_text("What would leave").wait_for()
        book.shot(f"inbox-{app}-review", inbox)
        item(page, 1).get_by_role("button", name="Release").click()
        assert asked.results["coef"].get(20).shape == (1, 2)
        page.get_by_text("request 1 released").wait_for()
        assert "slept" not in book.text(2)
        book.shot(f"inbox-{app}-after", inbox)
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.save(); }")
    saved = (server.folder / f"inbox-{app}.ipynb").read_text()
    assert "no requests yet" in saved  # the text that stands for the widget where there is no kernel
    assert str(asked.results["score"].get()) not in saved


def test_the_inbox_shows_what_changed_and_what_hangs_on_one_person(page, server, place):
    """A second version of an approved cell, on chosen rows; a comment each way; two approved at once; toasts."""
    book = Notebook(page, server, "behaviour.ipynb", [host("behaviour", place), "owner.inbox", "1"])
    book.run(0)
    book.start(1)
    page.get_by_text("it appears here at once").wait_for()
    with lab.connect(place / "behaviour.syft") as session:
        first = session.file(cell(reason="first version"))
        note(page, "Request 1 from alice").wait_for()
        book.shot("toast")
        item(page, 1).get_by_role("button", name="Approve").click()
        note(page, "waits for you").wait_for(timeout=5_000, state="detached")  # it does no more
        item(page, 1).get_by_role("button", name="Look at the result").wait_for()
        note(page, "Request 1 ran").wait_for()
        frame = session["patients"]
        old = frame[(frame.age > 20) & (frame.ward == "er")]
        code = CODE.replace("model.coef_,", "model.coef_ * 2,").replace("patients", "older")
        mended = Cell(code, (old.use("older"),), ("coef", "score", "by_ward"), {}, "doubled, for the emergency room")
        second = session.file(mended)
        item(page, 2).wait_for()
        with taking_no_clicks(page, ".syft-open"):
            third = session.file(
                cell("import os\ntop = patients.age.max()\nrows = patients.head(9)", ("top", "rows"), "to see")
            )
        box = item(page, 2)
        box.get_by_text("What changed since request 1").wait_for()
        box.get_by_text("no result grows with the number of rows").wait_for()
        box.get_by_text("rows of patients").wait_for()
        assert box.locator(".syft-diff .add").count() > 0
        item(page, 3).get_by_text("line 1: imports os").wait_for(state="attached")
        item(page, 3).locator("summary", has_text="hints").click()
        item(page, 3).get_by_text("a maximum is one person's value").wait_for()
        box.get_by_role("button", name="Leave one person out").click()
        box.get_by_text("leaving one person out").wait_for()
        box.get_by_role("button", name="Why not by itself?").click()
        box.get_by_label("what the policy says").wait_for()
        box.locator("summary", has_text="Comment").click()
        box.get_by_label("comment, for the analyst").fill("why doubled?")
        page.keyboard.press("Enter")
        box.get_by_text("why doubled?").wait_for()
        field = box.get_by_label("reason for a denial")
        field.focus()
        page.keyboard.type("not thi")
        second.comment("a mistake of mine")  # the card is drawn anew while somebody types
        box.get_by_text("a mistake of mine").wait_for()
        page.keyboard.type("s one")
        assert field.input_value() == "not this one"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Deny"
        inbox = page.get_by_label("inbox of requests")
        for dark in (False, True):
            book.theme(dark=dark)
            for n in (2, 3):
                book.shot(f"inbox-behaviour-{n}-{'dark' if dark else 'light'}", item(page, n))
        book.theme(dark=False)
        page.set_viewport_size({"width": 560, "height": 960})
        book.shot("inbox-behaviour-narrow", item(page, 2))
        page.set_viewport_size({"width": 1280, "height": 960})
        for n in (2, 3):
            item(page, n).get_by_label(f"choose request {n}").check()
        book.shot("inbox-batch", inbox)
        page.get_by_role("button", name="Approve 2 chosen").click()
        item(page, 2).get_by_role("button", name="Look at the result").wait_for()
        item(page, 3).get_by_role("button", name="Look at the result").click()
        item(page, 3).get_by_text("What would leave").wait_for()
        assert [r.state for r in session.requests] == ["review"] * 3
        assert (first.number, second.number, third.number) == (1, 2, 3)
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.save(); }")
    saved = (server.folder / "behaviour.ipynb").read_text()
    assert "rows of patients" not in saved  # footprints are of real data
    assert "leaving one person out" not in saved


def test_what_an_analyst_writes_is_text_on_the_page_and_the_analyst_reads_that_it_was_seen(page, server, place):
    book = Notebook(page, server, "hostile.ipynb", [host("hostile", place), "owner.inbox"])
    book.run(0)
    book.start(1)
    with lab.connect(place / "hostile.syft") as session:
        asked = session.file(cell(f"x = 1  # {HOSTILE}\n" + "y = '" + "w" * 400 + "'", ["x"], HOSTILE * 3, who=HOSTILE))
        seen = threading.Event()
        asked.on_change(lambda r: seen.set() if r.state == "seen" else None)
        item(page, 1).get_by_text("waits for you").wait_for()
        page.evaluate(
            "document.querySelector('.syft-panel [data-request]').scrollIntoView()"
        )  # cards are drawn anew as facts come
        assert asked.state == "seen" or seen.wait(30), asked
        assert "seen by the owner" in asked.progress
        shown = item(page, 1).inner_text()
        assert "\u202e" not in shown and "\x1b" not in shown
        assert "\\u{202e}" in shown or "\\u202e" in shown
        assert "<img src=x" in shown
        assert item(page, 1).locator("img, script").count() == 0
        assert page.evaluate("window.pwned") is None
        assert item(page, 1).locator("mark").count() > 0
        book.shot("inbox-hostile", page.get_by_label("inbox of requests"))


@pytest.mark.parametrize("app", ["lab"])
def test_the_analyst_follows_a_request_while_a_cell_runs(page, server, place, app):
    owner = lab.Owner.start(f"status-{app}")
    space: dict = {}
    exec(TABLE, space)
    owner.publish(space["patients"], "patients", population="clinic", privacy_unit="row", bounds={"age": (0, 110), "los_days": (0, 60)},
                  categories={"ward": ["er", "icu", "ward"]}, budget=lab.Budget(3))  # fmt: skip
    owner.invite("alice", budgets={"clinic": 1.0}, path=place / f"status-{app}.syft")
    try:
        remote = f"%%remote status_{app} --use patients --return coef score by_ward --reason 'readmission model, study 12'\n"
        quick = f"%%remote status_{app} --use patients --return m\nm = patients.age.mean()"
        cells = [f"%load_ext syft_lab\n%connect {place / f'status-{app}.syft'}", remote + CODE, quick, BUSY, "coef"]
        book = Notebook(page, server, f"status-{app}.ipynb", cells, app=app)
        book.run(0)
        for index in (1, 2):
            book.run(index)
        page.get_by_label("state of a request").first.wait_for()
        book.start(3)
        request = owner.requests.number(1)
        request.approve(digest=request.digest)
        page.locator("b", has_text="awaiting release").wait_for()
        book.shot(f"status-{app}-light")
        request.release()
        page.get_by_text("the values are here").wait_for()
        note(page, f"Request 1 at status-{app}: released").wait_for()
        assert page.locator(".syft-toast").count() == (app == "notebook")  # told once, by the workbench where there is one
        page.get_by_label("state of a request").nth(1).get_by_role("button", name="Cancel").click()
        page.locator(".syft-badge", has_text="cancelled").wait_for()
        assert owner.requests.number(2).state == "cancelled"
        assert "slept" not in book.text(3)
        book.theme(dark=True)
        book.shot(f"status-{app}-dark")
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
        book.finish(3)
        assert "exact value" in book.run(4)
        book.shot(f"status-{app}-result")
    finally:
        owner.stop()


@pytest.mark.parametrize("app", ["notebook"])
def test_gauge_console_and_pointer_answer_while_a_cell_runs(page, server, place, app):
    name = f"clinic-{app}"
    bound = name.replace("-", "_")
    cells = [host(name, place), "owner.gauge", "%owner status", f"%connect {place / f'{name}.syft'}", f"{bound}['patients'].view()",
             f"owner.policy.allow('dp', dataset='patients', epsilon_per_query=0.5)\n{bound}['patients'].age.sum().release(epsilon=0.5)",
             BUSY]  # fmt: skip
    book = Notebook(page, server, f"three-{app}.ipynb", cells, app=app)
    for index in range(4):
        book.run(index)
    for index in (5, 4):
        book.run(index)
    page.locator(".syft-dial .main-svg").first.wait_for()
    book.start(6)
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'")
    with lab.connect(name) as session, pytest.raises(errors.RefusedError):
        session["patients"].age.sum().release(epsilon=0.6)
    gauge = page.get_by_label("budget", exact=True)
    gauge.get_by_role("button", name="Refresh").click()
    page.get_by_text("as of ").wait_for()
    gauge.scroll_into_view_if_needed()
    book.shot(f"gauge-{app}-light", gauge)
    console = page.get_by_label("owner's console").last
    console.get_by_role("button", name="Verify journal").click()
    page.get_by_text("The journal holds").wait_for()
    book.shot(f"console-{app}-light", console)
    view = page.get_by_label("pointer to a table")
    view.get_by_role("button", name="Show mock rows").click()
    view.get_by_text("Mock rows 1 to 10 of 100").wait_for()
    view.get_by_role("button", name="Next").click()
    view.get_by_text("Mock rows 11 to 20 of 100").wait_for()
    book.shot(f"pointer-{app}-light", view)
    assert "slept" not in book.text(6)
    book.theme(dark=True)
    page.set_viewport_size({"width": 700, "height": 960})
    for what, target in (("gauge", gauge), ("console", console), ("pointer", view)):
        target.scroll_into_view_if_needed()
        book.shot(f"{what}-{app}-dark-narrow", target)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")


def test_without_a_page_there_is_text(place, monkeypatch):
    owner = lab.Owner.start("plain")
    try:
        owner.publish(pd.DataFrame({"x": np.arange(9.0)}), "t", privacy_unit="row", bounds={"x": (0, 9)}, budget=lab.Budget(1))
        for panel in (owner.inbox, owner.gauge):
            bundle = panel._repr_mimebundle_()
            data = bundle[0] if isinstance(bundle, tuple) else bundle
            assert re.match(r"no requests yet|Budgets at plain", data["text/plain"])
            assert "application/vnd.jupyter.widget-view+json" in data
            assert data["text/html"].startswith("<pre>")
        assert json.dumps(owner.gauge.get_state(), default=str).count("plotly.js v") == 0
        assert len(json.dumps(owner.gauge.get_state(), default=str)) < 60_000
    finally:
        owner.stop()
    assert os.environ["SYFT_LAB_HOME"].startswith(str(place))


TENSORS = """
import torch, syft_lab as lab
(clinic,) = lab.virtual_owners("clinic")
clinic.publish(torch.rand(60, 4), "a-dataset-with-quite-a-long-name-for-a-narrow-panel", bounds=(0, 1))
x = clinic["a-dataset-with-quite-a-long-name-for-a-narrow-panel"]
mean = x.clamp(0, 1).mean(0)
score = lab.plan(lambda x, w: torch.softmax(x @ w, 1).amax(1))
w = torch.randn(4, 3).send(clinic)
_ = score(x, w)
"""


def test_pointers_plans_and_asked_for_values_are_drawn(page, server, place):
    book = Notebook(
        page,
        server,
        "tensors.ipynb",
        [
            "%load_ext syft_lab\n" + TENSORS,
            "mean",
            "score.plan",
            "x[0].request(reason='one record')\nclinic.host.inbox",
            "x.item()",
            "others = lab.virtual_owners('second', 'third')\ntrio = lab.federation(clinic, *others, purpose='mean over three clinics')\ntrio",
            "clinic.host.inbox",
            "for o in others: o.host.requests[0].approve(digest=trio.terms.digest)\n"
            "shared = x.share(trio.wait(30)).mean(0)\nresult = shared.request(reason='mean over three clinics')\nshared",
        ],
    )
    for i in range(4):
        book.run(i, timeout=120)
    assert "aggregate(L1" in book.text(1)
    assert page.locator("svg[aria-label='a plan of 3 operations'] rect").count() == 5
    item(page, 1).locator("text=nothing runs: it asks for a value of a plan").wait_for()
    item(page, 1).locator(".tok-name, .tok-string").first.wait_for()
    assert "PrivateValueError" in book.run(4)
    assert "any two of the three owners together could open everything" in book.run(5, timeout=60)
    book.run(6)
    asked = page.locator(".jp-Cell").nth(6).locator(".syft-panel [data-request='2']")
    asked.get_by_text("A partnership: the kernels of these owners compute together").wait_for()
    for dark in (False, True):
        book.theme(dark=dark)
        book.shot(f"partnership-{'dark' if dark else 'light'}", page.locator(".jp-Cell").nth(6).locator(".jp-Cell-outputArea"))
    asked.get_by_role("button", name="Take part").click()
    asked.get_by_role("button", name="Leave the federation").wait_for()
    assert "any two of the three" in book.run(7, timeout=60)
    part = page.locator(".jp-Cell").nth(6).locator(".syft-panel [data-request='3']")
    part.get_by_role("button", name="Let it go").wait_for()
    for i, name in ((5, "federation"), (6, "part"), (7, "shared")):
        book.shot(f"{name}-dark", page.locator(".jp-Cell").nth(i).locator(".jp-Cell-outputArea"))
    part.get_by_role("button", name="Let it go").click()
    page.locator(".jp-Cell").nth(6).get_by_text("1 decided").wait_for()
    for dark in (False, True):
        book.theme(dark=dark)
        for i, name in ((1, "tensor"), (2, "plan"), (3, "tensor-request")):
            target = page.locator(".jp-Cell").nth(i).locator(".jp-Cell-outputArea")
            target.scroll_into_view_if_needed()
            book.shot(f"{name}-{'dark' if dark else 'light'}", target)
    book.theme(dark=False)
