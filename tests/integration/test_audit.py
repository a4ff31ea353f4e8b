"""The audit: exports that check offline, edited and rolled-back logs, the report, replays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import syft_lab as lab
from syft_lab import canonical, errors, study
from syft_lab.kernel.executor import levels

from .deciding import approved, cell, until

pytestmark = [
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]


def verify(*arguments):
    """`syft-lab verify` on a machine that knows nobody: everything it trusts is in its arguments."""
    alone = {**os.environ, "SYFT_LAB_HOME": os.path.abspath("nobody")}
    done = subprocess.run(
        [sys.executable, "-m", "syft_lab", "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=alone,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def studied(owner, session):
    """Some life at an owner: questions, an approved cell, a denied one, a comment, a top-up; receipts and an export."""
    first = session["patients"].count().release(epsilon=0.1)
    asked = session.file(cell(reason="readmission study 12"))
    approved(owner, 1).release()
    session.file(cell("m = patients.age.max()", reason="| <b>curious</b> |\n# hello"))
    owner.requests.number(2).comment("too close to one person").deny("a maximum is one person's")
    owner.top_up("clinic", 0.5, analyst="alice")
    asked.results["m"].get(20)
    receipts = [first.receipt.save("dp.json"), asked.results["m"].receipt.save("exact.json")]
    return owner, owner.audit.export("study.jsonl"), receipts


def test_a_whole_study_checks_offline(studied):
    owner, path, receipts = studied
    key = owner.keys.public.signing
    code, said = verify(path, *receipts, "--key", key, "--report", "report.md")
    assert code == 0, said
    assert "dp.json: good" in said
    assert "released count of rows in patients (version 1 of patients)" in said
    assert f"study.jsonl: good. {len(owner._journal)} entries" in said
    assert "holds the entries of 2 receipts" in said
    assert "every budget, state and approval follows" in said
    report = Path("report.md").read_text()
    assert "readmission study 12" in report
    code, said = verify(path)
    assert code == 2
    assert "give it with --key" in said
    assert "which is not the key given" in verify(path, "--key", "0" * 64)[1]


def tampered(path, change):
    lines = [json.loads(line) for line in Path(path).read_bytes().splitlines()]
    change(lines)
    with open("bad.jsonl", "wb") as out:
        for line in lines:
            out.write(canonical.dumps(line) + b"\n")
    return "bad.jsonl"


def _edit(lines):
    entries = lines[0]["entries"]
    at = next(i for i, e in enumerate(entries) if '"kind":"exact"' in e)
    entries[at] = entries[at].replace('"analyst":"alice"', '"analyst":"bob"')


def _drop(lines):
    del lines[0]["entries"][5]


def _swap(lines):
    e = lines[0]["entries"]
    e[4], e[5] = e[5], e[4]


def _roll_back(lines):
    lines[0]["entries"] = lines[0]["entries"][:-2]


def _add(lines):
    lines[0]["entries"].append(lines[0]["entries"][-1])


def _size(lines):
    lines[0]["head"]["size"] -= 1
    lines[0]["entries"] = lines[0]["entries"][:-1]


def _signature(lines):
    s = lines[0]["head"]["signature"]
    lines[0]["head"]["signature"] = s[:-1] + ("0" if s[-1] != "0" else "1")


def _leaf(lines):
    lines[0]["entries"][3] = {"leaf": "00" * 32}


def _start(lines):
    lines[0]["start"] = 1


@pytest.mark.parametrize("change", [_edit, _drop, _swap, _roll_back, _add, _size, _signature, _leaf, _start])
def test_an_edited_log_is_caught(studied, change):
    owner, path, _ = studied
    code, said = verify(tampered(path, change), "--key", owner.keys.public.signing)
    assert code == 1, said
    assert "syft-lab: " in said


def test_a_log_that_was_rolled_back_and_signed_again_is_caught_by_a_receipt(studied, home):
    """The owner restores an older state folder and goes on: every signature is good, and a receipt tells."""
    owner, _, receipts = studied
    owner.stop()
    import shutil
    import sqlite3

    folder = owner._folder
    fork = home / "fork.sqlite"
    shutil.copy(folder / "journal.sqlite", fork)
    db = sqlite3.connect(fork)
    db.executescript("DROP TRIGGER no_delete; DROP TRIGGER no_update; UPDATE stamp SET views = ''")
    db.execute("DELETE FROM log WHERE seq >= 6")
    db.commit()
    db.close()
    from syft_lab.kernel import exports
    from syft_lab.kernel.journal import Journal

    journal = Journal(fork, owner.keys)
    for _ in range(20):
        journal.append("exported", {"analyst": None})
    exports.write(home / "forked.jsonl", "hospital-a", owner.keys.public, journal)
    journal.close()
    assert study.load(home / "forked.jsonl").verify(owner.keys.public)  # by itself it looks fine
    code, said = verify(home / "forked.jsonl", *receipts, "--key", owner.keys.public.signing)
    assert code == 1
    assert "rolled back or edited" in said


def test_what_never_could_have_happened_is_caught_even_if_signed(studied, home):
    """An owner who signs a log in which something leaves without an approval: the fold says so."""
    _, path, _ = studied
    from syft_lab.kernel import journal

    entries = list(study.load(path).said())
    assert journal.fold(entries) is None
    cut = [e for e in entries if e["kind"] != "approved"]
    with pytest.raises(errors.VerificationError, match="does not follow"):
        journal.fold(cut)
    overspent = [dict(e, body={**e["body"], "epsilon_micro": 10**9}) if e["kind"] == "reserved" else e for e in entries]
    with pytest.raises(errors.VerificationError, match="does not follow"):
        journal.fold(overspent)


def test_an_export_for_one_analyst_hides_the_others_and_still_checks(studied):
    owner, _, receipts = studied
    owner.invite("bob", budgets={"clinic": 1.0})
    path = owner.audit.export("bob.jsonl", analyst="bob")
    text = path.read_text()
    assert "readmission" not in text
    assert "alice" not in text.replace('"analyst":"alice"', "") or "readmission" not in text
    code, said = verify(path, *receipts, "--key", owner.keys.public.signing)
    assert code == 0, said
    assert "withheld, as hashes" in said
    assert "every budget" not in said


def test_the_report_names_who_asked_what_why_who_approved_and_what_left(studied):
    owner, *_ = studied
    report = owner.audit.report("report.md")
    for part in ("### Request 1 from alice", "readmission study 12", "approved by owner", "left: m (number), exact, no ε",
                 owner.requests.number(1).digest, "ε = 0.1", "denied by owner: a maximum is one person's", "topped up",
                 "commented by owner: too close to one person", "spent on clinic: ε = 0.1", "count of rows in patients"):  # fmt: skip
        assert part in report, part
    assert "<b>" not in report
    assert "\n# hello" not in report
    log = owner.audit.log()
    assert list(log[log.kind == "released"].question) == ["count of rows in patients"]
    assert report._repr_markdown_() == Path("report.md").read_text(encoding="utf-8")


def test_no_export_holds_what_would_confirm_a_guess_at_the_table(studied):
    owner, path, _ = studied
    text = path.read_text()
    assert "salt" not in text
    for dataset in owner._catalogue.live():
        digest = owner._store.digest(dataset.meta["file"])
        assert digest not in text


def test_code_is_replayed_bit_for_bit_and_changed_data_are_noticed(owner, session, patients, terms):
    code = """
import numpy as np, random, torch
a = np.random.default_rng().normal() + np.random.rand() + random.random() + float(torch.rand(()))
m = patients.age.mean() + a
"""
    session.file(cell(code))
    approved(owner, 1)
    request = owner.requests[0]
    assert request.replay() is True
    request.release()
    assert request.replay() is True
    salt, blob = owner._desk._shelf.kept(request.id)
    owner._desk._shelf.keep(request.id, salt, blob[:-1] + b"\0")
    assert request.replay() is True  # it goes by the commitment in the journal, not by the file
    owner.withdraw("patients")
    with pytest.raises(errors.StateError, match="withdrawn"):
        request.replay()


def test_code_that_differs_from_run_to_run_does_not_replay(owner, session):
    session.file(cell("import os, time\nm = time.perf_counter_ns()"))
    approved(owner, 1)
    assert owner.requests[0].replay() is False


def test_a_question_is_replayed_as_the_same_distribution(owner, session):
    rows = session["patients"]
    receipts = [q.release(epsilon=0.1).receipt for q in (rows.count(), rows.groupby("ward").age.mean(), rows.age.sum())]
    size, spent = len(owner._journal), owner._ledger.account("alice", "clinic").spent
    for receipt in receipts:
        found = owner.audit.replay(receipt)
        assert found
        assert found.scales == receipt.details["scales"]
    assert (len(owner._journal), owner._ledger.account("alice", "clinic").spent) == (size, spent)
    session.file(cell())
    with pytest.raises(errors.UsageError, match="no question with this receipt"):
        owner.audit.replay("ab" * 16)


def test_a_dishonest_mechanism_does_not_replay(owner, session, monkeypatch):
    """Planted: the owner's receipt claims half the noise."""
    receipt = session["patients"].count().release(epsilon=0.1).receipt
    from syft_lab.kernel import audit

    honest = audit.guarantee
    monkeypatch.setattr(audit, "guarantee", lambda p, u: {**honest(p, u), "scales": {"n": "5"}})
    found = owner.audit.replay(receipt)
    assert not found
    assert found.differs == ("scales",)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[1]", b'{"syft_lab_log":1}', b'{"syft_lab_log":1,"start":0}', b"\xff\xfe", b"nonsense"]
)
def test_what_is_no_export_is_refused_in_words(home, text):
    (home / "x.jsonl").write_bytes(text)
    with pytest.raises(errors.WireError):
        study.load(home / "x.jsonl")
    code, said = verify("x.jsonl", "--key", "0" * 64)
    assert code in (1, 2)
    assert "Traceback" not in said


def test_a_long_journal_travels_in_parts(owner, session, monkeypatch):
    from syft_lab.kernel import exports

    monkeypatch.setattr(exports, "PART_BYTES", 500)
    owner.invite("ada", role="auditor")
    for _ in range(3):
        session.file(cell())
    with lab.connect("ada.syft", alias="adas") as auditor:
        assert auditor.audit.verify().size == len(owner._journal)
        assert len(auditor.audit.export("parts.jsonl").read_bytes().splitlines()) > 5
        assert study.load("parts.jsonl").verify(owner.keys.public)


def test_an_auditor_notices_an_owner_that_shows_another_log(owner, session):
    """The fork is signed and consistent in itself; it does not continue the head that the auditor holds."""
    owner.invite("ada", role="auditor")
    with lab.connect("ada.syft", alias="adas") as auditor:
        auditor.audit.verify()
        until(owner, session.file(cell()).number, "checked")
        fetch = auditor.audit
        held = auditor._trust.head
        from dataclasses import replace

        auditor._trust = replace(auditor._trust, head={**held, "root": "00" * 32})
        with pytest.raises(errors.VerificationError, match="does not continue"):
            fetch.verify()
