"""``%%remote`` in a real notebook kernel, with an owner in another one."""

import contextlib
import time

import pytest

from .kernels import CellError, Kernel

HOST = """
%load_ext syft_lab
%owner start hospital-a
import numpy as np, pandas as pd, syft_lab as lab
draw = np.random.default_rng(0)
frame = pd.DataFrame({"age": draw.integers(18, 90, 500), "los_days": draw.random(500) * 9, "ward": draw.choice(["er", "icu"], 500),
                      "readmitted": draw.random(500) < 0.3})
owner.publish(frame, "patients", privacy_unit="row", bounds={"age": (0, 110), "los_days": (0, 60)},
              categories={"ward": ["er", "icu"]}, budget=lab.Budget(3))
owner.invite("alice", budgets={"patients": 2.0})
"""
CELL = """%%remote hospital_a --use patients --return coef auc by_ward --reason "readmission model, study #12"
from sklearn.linear_model import LogisticRegression
X, y = patients[["age", "los_days"]], patients["readmitted"]
model = LogisticRegression().fit(X, y)
coef, auc = model.coef_, model.score(X, y)
by_ward = patients.groupby("ward")["los_days"].mean()
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """An owner's kernel and an analyst's, connected."""
    home = tmp_path_factory.mktemp("remote")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("SYFT_LAB_HOME", str(home / "state"))
        owner, analyst = stack.enter_context(Kernel(home)), stack.enter_context(Kernel(home))
        owner.run(HOST)
        analyst.run("%load_ext syft_lab\n%connect alice.syft")
        yield owner, analyst


def until(owner: Kernel, state: str) -> None:
    owner.run(f"import time\nwhile owner.requests[0].state != {state!r}: time.sleep(0.01)", timeout=60)


def test_a_cell_is_filed_approved_reviewed_and_released(pair):
    owner, analyst = pair
    packages = analyst.run("print(sorted(hospital_a.environment))")
    assert all(f"'{n}'" in packages for n in ("torch", "pandas", "numpy", "pyarrow", "scikit-learn"))
    shown = analyst.run(CELL)
    assert "request 1 at hospital-a: filed" in shown
    assert "waits for you" in owner.run("owner.inbox\nrequest = owner.requests[0]\nprint(request)")
    owner.run("import time\nwhile request.mock is None: time.sleep(0.01)", timeout=60)
    seen = owner.run("print(request)")
    assert "readmission model, study #12" in seen
    assert "gives coef (array 1×2), auc (number), by_ward (series 2); imports sklearn" in seen
    assert "waiting" not in analyst.run("print(coef.progress)")
    owner.run("request.approve(digest=request.digest)")
    until(owner, "review")
    assert "False" in analyst.run("print(coef.done())")
    assert "er" in owner.run("print(request.result['by_ward'])")
    owner.run("request.release()")
    assert "(1, 2)" in analyst.run("print((await coef).shape)")
    assert "by the owner's approval" in analyst.run("print(auc)")
    assert "ward" in analyst.run("print(by_ward.get())")
    assert "exact value" in analyst.run("print(auc.receipt.verify()['guarantee'])")
    assert "1  released" in analyst.run("%requests")


@pytest.mark.parametrize(
    ("line", "cell", "words"),
    [
        ("", "x = 1", "required"),
        ("hospital_a --use patients", "x = 1", "--return"),
        ("hospital_a --return x", "x = 1", "--use"),
        ("nobody --use patients --return x", "x = 1", "no connection is called"),
        ("hospital_a --use nothing --return x", "x = 1", "no dataset 'nothing' is open to you"),
        ("hospital_a --use patients --return 1x", "x = 1", "no name that a variable can have"),
        ("hospital_a --use patients --return x --param age", "x = 1", "write NAME=VALUE"),
        ("hospital_a --use patients --return x --block --noblock", "x = 1", "not both"),
        ("hospital_a --use patients --return x --dance", "x = 1", "unrecognized arguments: --dance"),
        ("hospital_a --use patients --return x", "%matplotlib inline\nx = 1", "without magics"),
        ("hospital_a --use patients --return x", "x = mine(3)", "mine exists only in this notebook"),
        ("hospital_a --use patients --return x", "x = 1\ndef f(): return nowhere", "nowhere is not defined"),
        ("hospital_a --use patients --return x", "x = 'text'", "text can't leave"),
        ("hospital_a --use patients --return x", "y = 1", "does not make x"),
        ("hospital_a --use patients --return x", "\n", "empty"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_filed(pair, line, cell, words):
    _, analyst = pair
    analyst.run("mine = lambda x: x")
    before = analyst.run("print(len(hospital_a.requests))")
    try:
        said = analyst.run(f"%%remote {line}\n{cell}")  # IPython prints its own usage errors
    except CellError as error:
        said = str(error).removeprefix("UsageError: ")
    assert said.startswith("UsageError: ")
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert analyst.run("print(len(hospital_a.requests))").split() == before.split()


def test_an_error_on_the_mock_shows_the_cells_own_traceback_and_files_nothing(pair):
    _, analyst = pair
    before = analyst.run("print(len(hospital_a.requests))")
    with pytest.raises(CellError) as caught:
        analyst.run(
            "%%remote hospital_a --use patients --return x\ndef ratio(t):\n    return t['nothing'] / 2\nx = ratio(patients)"
        )
    text = str(caught.value)
    assert caught.value.name == "KeyError"
    assert "x = ratio(patients)" in text
    assert "return t['nothing'] / 2" in text
    assert "run_on_mock" not in text
    assert "magics.py" not in text
    assert analyst.run("print(len(hospital_a.requests))").split() == before.split()


def test_a_denial_reaches_the_analyst_with_its_reason(pair):
    owner, analyst = pair
    analyst.run("%%remote hospital_a --use patients --return n\nn = len(patients)")
    owner.run("owner.requests[0].deny('cohort too small')")
    with pytest.raises(CellError) as caught:
        analyst.run("n.get(20)")
    assert caught.value.name == "RefusedError"
    assert "cohort too small" in str(caught.value)


def test_parameters_are_part_of_the_request(pair):
    owner, analyst = pair
    analyst.run(
        "%%remote hospital_a --use patients --return n --param age=65 'who=all of them'\nn = (patients.age > age).sum()"
    )
    assert "age = 65, who = 'all of them'" in owner.run("print(owner.requests[0])")
    owner.run("r = owner.requests[0]; r.approve(digest=r.digest)")
    until(owner, "review")
    owner.run("r.release()")
    assert int(analyst.run("print(n.get(20))")) == int(owner.run("print((frame.age > 65).sum())"))


def test_an_interrupt_ends_the_wait_and_not_the_request(pair):
    owner, analyst = pair
    asked = analyst.start("%%remote hospital_a --use patients --return m --block\nm = patients.age.mean()")
    while "filed" not in owner.run("print([r.state for r in owner.requests[:1]])"):
        time.sleep(0.01)
    while "request" not in analyst.client.get_iopub_msg(timeout=20)["content"].get("data", {}).get("text/plain", ""):
        continue
    analyst.manager.interrupt_kernel()
    with pytest.raises(CellError) as caught:
        analyst.finish(asked)
    assert caught.value.name == "KeyboardInterrupt"
    owner.run("r = owner.requests[0]; r.approve(digest=r.digest)")
    until(owner, "review")
    owner.run("r.release()")
    assert float(analyst.run("print(m.get(20))")) > 18


def test_a_failure_tells_the_analyst_no_private_word(pair):
    owner, analyst = pair
    cell = "n = len(patients)\nif n > 100: raise ValueError(f'oldest is {patients.age.max()}')"
    analyst.run(f"%%remote hospital_a --use patients --return n\n{cell}")
    owner.run("r = owner.requests[0]; r.approve(digest=r.digest)")
    until(owner, "failed")
    with pytest.raises(CellError) as caught:
        analyst.run("n.get(20)")
    assert caught.value.name == "FailedError"
    assert "oldest" not in str(caught.value)
    assert "oldest is 89" in owner.run("print(r.log)")


def test_what_was_released_can_be_fetched_from_another_notebook_later(pair, tmp_path):
    owner, analyst = pair
    analyst.run("%%remote hospital_a --use patients --return later\nlater = patients.age.median()")
    number = analyst.run("print(later.request.number)").strip()
    analyst.run("hospital_a.close()")
    owner.run("r = owner.requests[0]; r.approve(digest=r.digest)")
    until(owner, "review")
    owner.run("r.release()")
    with Kernel(tmp_path) as other:
        other.run("%load_ext syft_lab\n%connect hospital-a")
        assert "released" in other.run("%requests")
        assert float(other.run(f"%requests fetch {number}\nprint(later.get(20))").split()[-1]) > 18
    analyst.run("%connect hospital-a")


def test_a_request_can_be_cancelled(pair):
    owner, analyst = pair
    analyst.run("%%remote hospital_a --use patients --return z\nimport time\nif len(patients) > 100: time.sleep(60)\nz = 1")
    owner.run("r = owner.requests[0]; r.approve(digest=r.digest)")
    until(owner, "running")
    number = analyst.run("print(z.request.number)").strip()
    analyst.run(f"%requests cancel {number}")
    assert "cancelled" in owner.run("print(r.state)")
    with pytest.raises(CellError, match="was cancelled"):
        analyst.run("z.get(20)")


def test_a_filtered_frame_of_the_notebook_is_used_by_its_variable(pair):
    owner, analyst = pair
    analyst.run("patients = hospital_a['patients']\nolder = patients[patients.age > 65][['age']]")
    analyst.run(
        "%%remote hospital_a --use older --return low wide --reason 'the older ones'\nlow, wide = older.age.min(), older.shape[1]"
    )
    assert "older, (age > 65); columns age" in owner.run("r = owner.requests[0]; print(r)")
    owner.run("r.wait(); r.approve(digest=r.digest)")
    until(owner, "review")
    owner.run("r.release()")
    assert analyst.run("print(low.get(20), wide.get(20))").split() == ["66", "1"]
    analyst.run("made = patients.assign(double=patients.age * 2)")
    with pytest.raises(CellError, match="is computed: compute it inside the cell"):
        analyst.run("%%remote hospital_a --use made --return x\nx = 1")


def test_comments_and_what_follows_what_from_magics(pair):
    owner, analyst = pair
    analyst.run("%%remote hospital_a --use patients --return first\nfirst = patients.age.max()")
    number = analyst.run("print(first.request.number)").strip()
    owner.run("r = owner.requests[0]; r.deny('a maximum is one person')")
    assert "denied" in analyst.run(f"%requests comment {number} 'what about a quantile?'")
    assert "quantile" in owner.run("print(r.comments[-1]['text'])")
    analyst.run(f"%%remote hospital_a --use patients --return first --follows {number}\nfirst = patients.age.quantile(0.9)")
    assert owner.run("print(owner.requests[0].follows)").strip() == number
    shown = analyst.run("%requests show " + analyst.run("print(first.request.number)").strip())
    assert "returns first" in shown
    owner.run("owner.requests[0].deny('enough')")


def test_a_failed_cell_is_run_again_on_harder_mocks_in_the_notebook(pair):
    owner, analyst = pair
    analyst.run("%%remote hospital_a --use patients --return q\nif len(patients) > 100: 1 / 0\nq = patients.age.iloc[0] + 1")
    owner.run("r = owner.requests[0]; r.wait(); r.approve(digest=r.digest)")
    until(owner, "failed")
    with pytest.raises(CellError, match="the mock without rows") as caught:
        analyst.run("q.get(20)")
    assert "on the mock with nulls" in str(caught.value)
    assert "ZeroDivisionError" not in str(caught.value)


def test_tab_completes_owners_datasets_and_options(pair):
    _, analyst = pair
    analyst.run("palliative = hospital_a['patients'].head and hospital_a['patients']")
    assert analyst.complete("%%remote hospital_a --use pal") == ["palliative"]
    assert analyst.complete("%requests com") == ["comment"]
    assert "hospital_a" in analyst.complete("%%remote hosp")
    assert analyst.complete("%%remote hospital_a --use pat") == ["patients"]
    assert "--return" in analyst.complete("%%remote hospital_a --use patients --ret")
    assert analyst.complete("%requests fe") == ["fetch"]


def test_the_owner_is_not_slowed_by_what_runs(pair):
    """The service and the kernel's own loop answer while two cells compute on all their threads."""
    owner, analyst = pair
    busy = "import torch\nif len(patients) > 100:\n    a = torch.rand(600, 600)\n    for _ in range(10**6): a @ a\nw = 1"
    for name in ("b1", "b2"):
        analyst.run(f"%%remote hospital_a --use patients --return w\n{busy}\n")
        owner.run(f"{name} = owner.requests[0]; {name}.approve(digest={name}.digest)")
        until(owner, "running")
    assert float(analyst.run("print(max(hospital_a.ping() for _ in range(20)))")) < 2
    assert "2" in owner.run("1 + 1", timeout=20)
    owner.run("b1.cancel(); b2.cancel()")
