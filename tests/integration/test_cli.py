"""The command line: doctor, verify, and an owner without a notebook, in processes of their own."""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import syft_lab as lab
from syft_lab import cli

CONFIG = """
name = "hospital-b"

[[dataset]]
file = "patients.parquet"
name = "patients"
population = "clinic"
privacy_unit = "patient_id"
max_contributions = 2
bounds = {age = [0, 110]}
categories = {ward = ["er", "icu", "ward"]}
budget = {epsilon = 3.0, delta = 1e-6}

[[allow]]
dataset = "patients"
epsilon_per_query = 0.5

[[invite]]
analyst = "alice"
budgets = {clinic = 1.0}
"""


class Headless:
    """``syft-lab owner`` as a process; leaves when asked to."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "syft_lab", "owner", "--config", str(folder / "owner.toml")]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE)
        self.log = ""
        while "answers at" not in self.log:
            # Read past Python's buffer: what waits in there, select does not see.
            ready = select.select([self.process.stderr], [], [], 60)[0]
            more = os.read(self.process.stderr.fileno(), 4096) if ready else b""
            if not more:
                self.process.kill()
                raise AssertionError(self.log + self.process.communicate()[1].decode())
            self.log += more.decode()

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        self.log += self.process.communicate(timeout=30)[1].decode()
        return self.process.returncode


@pytest.fixture
def folder(home, patients):
    patients.to_parquet(home / "patients.parquet")
    (home / "owner.toml").write_text(CONFIG)
    return home


def test_an_owner_without_a_notebook_does_the_same_and_starting_again_changes_nothing(folder):
    headless = Headless(folder)
    with lab.connect("alice.syft") as session:
        value = session["patients"].groupby("ward").size().release(epsilon=0.5).value
    assert headless.stop() == 0
    assert "alice enrolled as analyst" in headless.log
    again = Headless(folder)
    with lab.connect("hospital-b") as session:
        assert session["patients"].groupby("ward").size().release(epsilon=0.5).value.equals(value)
        assert session.budget().spent == {"clinic": 0.5}
    assert again.stop(signal.SIGINT) == 0
    assert "published" not in again.log


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("name =", "nome ="), "no setting 'nome'"),
        (('name = "hospital-b"', ""), "name is missing"),
        (("privacy_unit", "privacy_units"), "privacy_units"),
        (('privacy_unit = "patient_id"', ""), "privacy_unit"),
        (("[[allow]]", "[allow]"), "two brackets"),
        (("patients.parquet", "gone.parquet"), "no Parquet file"),
        (("= [0, 110]", "= [0"), "not TOML"),
        (("epsilon = 3.0", "epsilon = -3.0"), "epsilon"),
    ],
)
def test_mistakes_in_the_configuration_are_one_line(folder, capsys, change, word):
    (folder / "owner.toml").write_text(CONFIG.replace(*change))
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert cli.main(["owner", "--config", str(folder / "owner.toml")]) in (1, 2)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("syft-lab: ")
    assert word in message


def test_verify_trusts_the_key_it_is_given_or_knows_and_no_other(session, home, owner, capsys, monkeypatch):
    receipt = session["patients"].count().release(epsilon=0.1).receipt
    path = str(receipt.save(home / "r.json"))
    assert cli.main(["verify", path]) == 0  # this machine knows the owner
    assert "released count of rows in patients (version 1 of patients) to alice" in capsys.readouterr().out
    monkeypatch.setenv("SYFT_LAB_HOME", str(home / "nowhere"))
    assert cli.main(["verify", path]) == 2
    assert session.fingerprint in capsys.readouterr().err
    assert cli.main(["verify", path, "--key", session.fingerprint]) == 0
    assert cli.main(["verify", path, "--key", "0" * 64]) == 2
    Path(path).write_text(Path(path).read_text().replace("alice", "mallo"))
    assert cli.main(["verify", path, "--key", session.fingerprint]) == 1
    Path(path).write_text("[]")
    assert cli.main(["verify", path]) == 1
    assert cli.main(["verify", str(home / "gone.json")]) == 2
    assert cli.main(["verify"]) == 2


def test_verify_checks_a_journal_and_receipts_against_it(session, home, owner, capsys):
    path = str(session["patients"].count().release(epsilon=0.1).receipt.save(home / "r.json"))
    folder = home / "state" / "owners" / "hospital-a"
    assert cli.main(["verify", path, "--journal", str(folder)]) == 0
    assert "holds the entries of all 1 receipts" in capsys.readouterr().out
    assert cli.main(["verify", "--journal", str(home)]) == 1
    owner.stop()  # an auditor with a copy of the journal and the public key alone
    shutil.copy(folder / "journal.sqlite", home / "copy.sqlite")
    assert cli.main(["verify", "--journal", str(home / "copy.sqlite"), "--key", owner.keys.public.signing, path]) == 0
    assert cli.main(["verify", "--journal", str(home / "copy.sqlite")]) == 2
    assert cli.main(["verify", "--journal", str(home / "copy.sqlite"), "--key", "0" * 64]) == 1
    assert cli.main(["verify", "--journal", str(home / "gone.sqlite"), "--key", owner.keys.public.signing]) == 1


def test_doctor_says_what_is_here(home, capsys):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in ("syft-lab", "opendp", "device", "state", "set by SYFT_LAB_HOME", "all that is needed is here"):
        assert word in said


def test_doctor_says_what_is_missing(home, capsys, monkeypatch):
    real = cli._version
    monkeypatch.setattr(cli, "_version", lambda name: None if name in ("opendp", "segno") else real(name))
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "missing      opendp" in said
    assert "pip install syft-lab[qr]" in said


def test_the_command_is_installed():
    done = subprocess.run(
        [Path(sys.executable).parent / "syft-lab", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == f"syft-lab {lab.__version__}"


def test_the_demo_runs_and_leaves_both_notebooks(tmp_path):
    """The README's first command, on its own copy: the real table, two kernels, a verified receipt."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / "examples", tmp_path / "examples")
    done = subprocess.run(
        [sys.executable, "examples/demo.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    for said in ("released", "refused: no policy", "over budget: this costs", "receipt.json: good", "The journal holds"):
        assert said in done.stdout
    assert {p.name for p in (tmp_path / "demo-output").glob("*.ipynb")} == {"owner.ipynb", "analyst.ipynb"}
    released = pd.read_json(tmp_path / "demo-output" / "answers.json")
    assert released.shape[1] >= 8
