"""The workbench's line to a real kernel: views, commands, pages that come and go, and a kernel that is busy."""

import json
import time

import pytest
from jupyter_client.manager import KernelManager

import syft_lab as lab
from syft_lab.cell import Cell

LOAD = "%load_ext syft_lab"
HOST = """
%owner start clinic
import pandas as pd, syft_lab as lab
owner.publish(pd.DataFrame({"age": range(100)}), "patients", privacy_unit="row", bounds={"age": (0, 110)},
              budget=lab.Budget(3), tags=["oncology"], description="Admissions")
owner.invite("alice", budgets={"patients": 1.0});
"""


class Page:
    """What the page does: opens a comm, and hears what the kernel says on it."""

    def __init__(self, client, name):
        self.client, self.name, self.count = client, name, 0
        self.views, self.has, self.times = {}, {}, {}
        self._send("comm_open", {"comm_id": name, "target_name": "syft_lab", "data": {}})

    def _send(self, kind, content):
        self.client.shell_channel.send(self.client.session.msg(kind, content))

    def say(self, **command):
        self.count += 1
        number = f"{self.name} {self.count}"
        self._send("comm_msg", {"comm_id": self.name, "data": {**command, "n": number}})
        return number

    def hear(self, wanted, timeout=30.0):
        """Listen until ``wanted(data)`` gives something true of what was said on this comm; gives that."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            message = self.client.get_iopub_msg(timeout=timeout)
            assert message["msg_type"] != "error", message["content"]
            self.client.printed += message["content"].get("text", "")
            if message["content"].get("comm_id") != self.name or message["msg_type"] == "comm_open":
                continue
            data = message["content"]["data"] if message["msg_type"] == "comm_msg" else {"closed": True}
            if "view" in data:
                self.views[data["view"]], self.has[data["view"]] = data["state"], data["turn"]
                self.times[data["view"]] = self.times.get(data["view"], 0) + 1
            found = wanted(data)
            if found:
                return found
        raise AssertionError("it was not said in time")

    def ask(self, **command):
        number = self.say(**command)
        return self.hear(lambda d: d if d.get("reply") == number else None)

    def view(self, name, good=lambda state: True):
        return self.hear(lambda d: d["state"] if d.get("view") == name and good(d["state"]) else None)


@pytest.fixture
def client(home):
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(home))
    found, runner = manager.blocking_client(), manager.blocking_client()
    for one in (found, runner):
        one.start_channels()
        one.wait_for_ready(timeout=60)
    found.printed, found.runner = "", runner  # what runs cells reads what they print; pages hear the rest
    yield found
    for one in (found, runner):
        one.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def run(client, code):
    reply = client.runner.execute_interactive(code, timeout=60, output_hook=lambda _: None)
    assert reply["content"]["status"] == "ok", reply["content"]


def test_a_kernel_without_syft_lab_closes_the_comm_and_one_that_loads_it_says_so(client):
    page = Page(client, "early")
    assert page.hear(lambda d: d.get("closed"))
    client.execute(LOAD)
    while True:
        message = client.get_iopub_msg(timeout=30)
        if message["msg_type"] == "comm_open":
            assert message["content"]["target_name"] == "syft_lab"
            break
    reply = client.comm_info("syft_lab", reply=True, timeout=30)  # what a page asks that is loaded later
    assert {c["target_name"] for c in reply["content"]["comms"].values()} == {"syft_lab"}


def test_a_page_hears_of_the_views_that_it_watches_and_of_no_others(client):
    run(client, LOAD)
    page = Page(client, "one")
    page.ask(do="watch", views=["owner", "analyst"])
    assert page.view("analyst") == {"pointers": [], "sessions": []}
    run(client, HOST)
    found = page.view("owner", lambda s: s["analysts"] == [] and s["datasets"])
    (dataset,) = found["datasets"]
    assert (dataset["name"], dataset["tags"], dataset["cap"]) == ("patients", ["oncology"], 3.0)
    assert dataset["columns"] == [
        {"name": "age", "kind": dataset["columns"][0]["kind"], "bounds": [0, 110], "categories": None}
    ]
    assert found["running"] and found["waiting"] == 0
    run(client, "%connect alice.syft")
    session = page.view("analyst", lambda s: s["sessions"] and s["sessions"][0]["gauges"])["sessions"][0]
    assert session["name"] == session["owner"] == "clinic"
    assert session["latency"] > 0
    assert [d["name"] for d in session["datasets"]] == ["patients"]
    assert session["gauges"][0]["left"] == 1.0
    assert page.view("owner", lambda s: s["analysts"] and s["analysts"][0]["heard"])["analysts"][0]["name"] == "alice"
    run(client, "p = clinic['patients']\nq = p.age")
    held = page.view("analyst", lambda s: len(s["pointers"]) == 2)["pointers"]
    assert {(p["name"], p["kind"], p["owner"]) for p in held} == {("p", "table", "clinic"), ("q", "column", "clinic")}
    assert page.ask(do="free", view="analyst", name="q")["ok"] == "q"
    page.view("analyst", lambda s: [p["name"] for p in s["pointers"]] == ["p"])
    assert "inbox" not in page.views
    run(client, "%owner stop")
    assert page.view("owner", lambda s: not s["running"])["name"] == "clinic"
    assert page.view("analyst", lambda s: s["sessions"][0]["state"] == "lost")["sessions"][0]["why"]


def test_the_budget_is_shown_as_it_is_soon_after_each_release(client):
    run(client, LOAD + "\nimport syft_lab.analyst.overview as overview\noverview.NEWS_SECONDS = 1000")
    run(client, HOST + "owner.policy.allow('dp', dataset='patients', epsilon_per_query=0.5)")
    page = Page(client, "one")
    page.ask(do="watch", views=["analyst"])
    run(client, "%connect alice.syft")

    def left(expected):
        page.view("analyst", lambda s: [g["left"] for c in s["sessions"] for g in c["gauges"]] == [expected])

    left(1.0)
    for what, expected in (("sum", 0.75), ("mean", 0.5)):
        run(client, f"clinic['patients'].age.{what}().release(epsilon=0.25).value")
        left(expected)


def test_a_view_that_was_lost_on_the_way_is_sent_again(client):
    run(client, LOAD)
    run(client, HOST)
    page = Page(client, "one")
    page.ask(do="watch", views=["inbox", "analyst"])  # both stay as they are while nobody asks
    while len(page.has) < 2:
        page.hear(lambda d: "view" in d)
    page.ask(do="watch", views=["inbox", "analyst"], has=page.has)
    page.ask(do="watch", views=["inbox", "analyst"], has={**page.has, "analyst": -1})
    page.view("analyst")
    assert page.times == {"inbox": 1, "analyst": 2}, "what it has it is not sent again"
    page.ask(do="watch", views=["inbox", "analyst"], has={"inbox": [1], "analyst": page.has["analyst"]})
    assert page.view("inbox")["owner"] == "clinic"
    assert page.times == {"inbox": 2, "analyst": 2}


def test_pages_are_told_again_after_a_look_that_failed(client):
    run(client, LOAD)
    page = Page(client, "one")
    page.ask(do="watch", views=["owner"])
    run(client, HOST)
    page.view("owner", lambda s: s["datasets"])
    run(
        client,
        """
import threading
from syft_lab.kernel.owner import Owner
views, failed = Owner.views, threading.Event()
def broken(self):
    failed.set()
    raise OSError("of the sort that nobody expects: alice is 41")
Owner.views = broken
owner.invite("bob")
assert failed.wait(20)
Owner.views = views
""",
    )
    page.view("owner", lambda s: "bob" in str(s["events"]))
    run(client, "1")
    assert "41" not in client.printed


def test_commands_are_answered_while_a_cell_runs_and_a_page_that_opens_then_is_served(client):
    run(client, LOAD)
    run(client, HOST)
    page = Page(client, "one")
    page.ask(do="watch", views=["owner"])
    client.execute("print('begun')\nimport time\nfor _ in range(200): time.sleep(0.05)\nprint('over')")
    while "begun" not in client.get_iopub_msg(timeout=30)["content"].get("text", ""):
        continue
    assert page.ask(do="verify", view="owner")["ok"].startswith("The journal holds")
    late = Page(client, "two")
    late.ask(do="watch", views=["owner"])
    assert late.view("owner")["name"] == "clinic"
    assert "over" not in client.printed


def test_bad_commands_get_one_clear_line(client):
    run(client, LOAD)
    page = Page(client, "one")
    assert "there is no command" in page.ask(do="explode", view="owner")["error"]
    assert "there is no command" in page.ask(do=["x"], view={"y": 1})["error"]
    assert "name the views" in page.ask(do="watch", views="owner")["error"]
    assert "no pointer is called" in page.ask(do="free", view="analyst", name="nothing")["error"]
    assert "no connection" in page.ask(do="cancel", view="analyst", name="x", number=1)["error"]
    page._send("comm_msg", {"comm_id": "one", "data": "words"})
    assert "there is no command" in page.hear(lambda d: d.get("error"))
    assert json.dumps(page.ask(do="watch", views=[])["ok"]) == "1"


def test_pointers_and_plans_are_listed_and_nothing_is_recorded_by_looking(client):
    run(client, LOAD)
    page = Page(client, "one")
    page.ask(do="watch", views=["analyst"])
    run(
        client,
        """
import torch, syft_lab as lab
(clinic,) = lab.virtual_owners("clinic")
x = torch.rand(60, 4).send(clinic)
y = x * 2
z = y[:3]
z.add_(1)
double = lab.plan(lambda t: t * 2)
double(x)
before = clinic.tape.recorded
""",
    )
    view = page.view("analyst", lambda s: len(s["pointers"]) == 4)
    held = {p["name"]: p for p in view["pointers"]}
    assert held["x"]["kind"] == "tensor"
    assert held["x"]["bytes"] == 60 * 4 * 4
    assert held["x"]["about"].startswith("float32 60×4")
    assert held["double"]["about"].startswith("1 operations")
    page.ask(do="watch", views=["analyst"])
    run(client, "assert clinic.tape.recorded == before")
    page.ask(do="free", view="analyst", name="z")
    page.view("analyst", lambda s: {p["name"] for p in s["pointers"]} == {"x", "y", "double"})
    run(client, "clinic.close()")
    page.view("analyst", lambda s: s["sessions"][0]["state"] == "closed")


def test_a_widget_decides_over_the_bare_protocol_while_a_cell_runs(client, home):
    """What VS Code and Colab speak: a custom message on the widget's comm, and no page of ours."""
    shown = []
    run(client, LOAD)
    run(client, HOST)
    client.runner.execute_interactive(
        "print(owner.inbox.comm.comm_id)", output_hook=lambda m: shown.append(m["content"].get("text", ""))
    )
    comm = "".join(shown).strip()
    with lab.connect(home / "alice.syft") as session:
        asked = session.file(Cell("x = patients.age.mean()", (("patients", 1),), ("x",), {}, "to know"))
        client.execute("print('begun')\nimport time\nfor _ in range(400): time.sleep(0.05)\nprint('over')")
        while "begun" not in client.get_iopub_msg(timeout=30)["content"].get("text", ""):
            continue
        content = {"do": "approve", "id": asked.id, "digest": asked.digest, "n": "one"}
        message = client.session.msg("comm_msg", {"comm_id": comm, "data": {"method": "custom", "content": content}})
        client.shell_channel.send(message)
        while True:
            said = client.get_iopub_msg(timeout=30)["content"]
            assert said.get("text", "") != "over\n"
            if said.get("comm_id") == comm and said["data"].get("content", {}).get("reply") == "one":
                assert said["data"]["content"]["ok"] == asked.number
                break
