"""Connecting, and every way it can fail: one clear line within three seconds, never a hang."""

import asyncio
import contextlib
import json
import shutil
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zmq

import syft_lab as lab
from syft_lab import errors
from syft_lab.identity import Invitation, Keys, Trust
from syft_lab.kernel import release
from syft_lab.wire import messages, zmq_link
from syft_lab.wire.zmq_link import ZmqTransport

LIMIT = 3.0


def refused(call, kind, match):
    """``call`` fails with one line of this kind, in time."""
    start = time.perf_counter()
    with pytest.raises(kind, match=match) as caught:
        call()
    assert time.perf_counter() - start < LIMIT
    assert "\n" not in str(caught.value)


def forge(home, **changes):
    """Alice's trust file with something else in it."""
    folder = home / "state" / "connections" / "hospital-a"
    replace(Trust.load(folder), **changes).save(folder)


def test_an_invitation_enrols_once_and_the_notebook_can_be_run_again(owner):
    with lab.connect("alice.syft") as first:
        first.ping()
    with lab.connect("alice.syft") as again:
        again.ping()
    with lab.connect("hospital-a") as by_name:
        assert by_name.ping() > 0
    assert owner.enrolled == ["alice"]
    assert list(owner.audit.log().kind).count("enrolled") == 1


def test_a_used_invitation_is_refused_on_another_machine(owner, home, monkeypatch):
    lab.connect("alice.syft").close()
    monkeypatch.setenv("SYFT_LAB_HOME", str(home / "elsewhere"))
    refused(lambda: lab.connect("alice.syft"), errors.InvitationError, "used already")


def test_an_expired_invitation_is_refused_here_and_by_the_owner(owner, home):
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat(timespec="seconds")
    written = Invitation.read(home / "alice.syft")
    replace(written, expires=past).signed_by(owner.keys).write(home / "late.syft")
    refused(lambda: lab.connect("late.syft"), errors.InvitationError, "expired")
    # A clock that is wrong on this side does not help: the owner's own record counts.
    owner.invite("bob", expires="1m")
    bob = Invitation.read(home / "bob.syft")
    known = owner._registry._invitations[bob.id]
    owner._registry._invitations[bob.id] = replace(known, expires=past)
    refused(lambda: lab.connect("bob.syft", alias="as-bob"), errors.InvitationError, "expired")


def test_a_revoked_invitation_is_refused(owner):
    owner.revoke("alice")
    refused(lambda: lab.connect("alice.syft"), errors.InvitationError, "revoked")


def test_a_changed_invitation_is_refused(owner, home):
    content = json.loads((home / "alice.syft").read_text())
    (home / "alice.syft").write_text(json.dumps({**content, "role": "owner"}))
    refused(lambda: lab.connect("alice.syft"), errors.InvitationError, "not a whole invitation")


def test_a_dead_address_is_one_line(owner, home, session):
    session.close()
    owner.stop()
    refused(lambda: lab.connect("hospital-a"), errors.UnreachableError, "is the owner's kernel running")


@pytest.mark.parametrize("when", ["the address", "the file", "what ran before"])
def test_a_start_that_fails_leaves_nothing_that_answers(home, patients, terms, monkeypatch, when):
    first = lab.Owner.start("hospital-a")
    first.publish(patients, name="patients", budget=lab.Budget(1.0), **terms)
    first.stop()
    before = {t.name for t in threading.enumerate()}

    def fails(*_):
        raise OSError("no space left")

    place = {"the file": "syft_lab.kernel.owner.write_secret", "what ran before": "syft_lab.kernel.requests.runs.Runs.resume"}
    with monkeypatch.context() as broken:
        if when in place:
            broken.setattr(place[when], fails)
        with pytest.raises((errors.UsageError, OSError)):
            lab.Owner.start("hospital-a", advertise="data.example" if when == "the address" else None)
    assert {t.name for t in threading.enumerate()} <= before | {"syft-verify"}
    again = lab.Owner.start("hospital-a")
    assert again.address == first.address
    again.stop()


def test_an_owner_takes_a_port_that_the_system_gives_to_nobody_else_and_keeps_it(home, monkeypatch):
    owner = lab.Owner.start("hospital-a")
    port = int(owner.address.rpartition(":")[2])
    owner.stop()
    assert port in zmq_link.PORTS
    assert port < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    again = lab.Owner.start("hospital-a")
    assert again.address == owner.address
    monkeypatch.setattr(zmq_link, "PORTS", [port] * 20)
    other = lab.Owner.start("hospital-b")  # where those are taken, any will do
    other.stop()
    again.stop()
    assert other.address != owner.address
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # another test's owner may have it by now: it is taken all the same
            taken.bind(("127.0.0.1", port))
            taken.listen()
        with pytest.raises(errors.UsageError, match=f"can't listen on 127.0.0.1:{port}: Address already in use.*--listen"):
            lab.Owner.start("hospital-a")


def test_an_address_that_swallows_everything_is_one_line(owner, home, session):
    session.close()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # accepts by the kernel's backlog, and never says a word
        forge(home, addresses=(f"127.0.0.1:{silent.getsockname()[1]}",))
        refused(lambda: lab.connect("hospital-a"), errors.ConnectError, "answers at 127.0.0.1")


def test_an_address_of_another_service_is_one_line(owner, home, session):
    session.close()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def speak():
            connection, _ = other.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
                connection.recv(1000)

        speaker = threading.Thread(target=speak)
        speaker.start()
        forge(home, addresses=(f"127.0.0.1:{other.getsockname()[1]}",))
        refused(lambda: lab.connect("hospital-a"), errors.ConnectError, "answers at 127.0.0.1")
        speaker.join()


@pytest.mark.parametrize("address", ["nonsense", "no-such-host.invalid:7000", "127.0.0.1:0", "127.0.0.1:99999"])
def test_an_odd_address_is_one_line(owner, home, session, address):
    session.close()
    forge(home, addresses=(address,))
    refused(lambda: lab.connect("hospital-a"), errors.UnreachableError, "address|answers|listens")


def test_a_wrong_owner_key_is_one_line(owner, home, session):
    session.close()
    forge(home, curve_keys=(Keys.generate().public.curve,))
    refused(lambda: lab.connect("hospital-a"), errors.KeyMismatchError, "not with the owner's key")


def test_a_key_that_the_owner_does_not_know_is_one_line(owner, home, session):
    session.close()
    Keys.generate().save(home / "state" / "connections" / "hospital-a" / "keys.json")
    refused(lambda: lab.connect("hospital-a"), errors.KeyMismatchError, "does not know this machine's key")


def test_an_unknown_name_lists_those_that_are_known(owner, session):
    refused(lambda: lab.connect("hospital-b"), errors.UsageError, "known are: hospital-a")
    refused(lambda: lab.connect("nobody.syft"), errors.InvitationError, "no file")


@pytest.mark.parametrize(("versions", "side"), [([7, 8], "the owner's"), ([0], "your")])
def test_another_protocol_says_which_side_to_upgrade(owner, session, monkeypatch, versions, side):
    monkeypatch.setattr(messages, "VERSIONS", tuple(versions))
    refused(session.reconnect, errors.ProtocolError, f"upgrade {side} syft-lab")


def test_a_newer_protocol_is_told_when_enrolling_too(owner, monkeypatch):
    monkeypatch.setattr(messages, "VERSIONS", (9,))
    refused(lambda: lab.connect("alice.syft"), errors.ProtocolError, "upgrade the owner's")


def test_revocation_bites_on_the_next_message_of_a_live_connection(owner, session):
    frame = session["patients"]
    frame.count().release(epsilon=0.1)
    owner.revoke("alice")
    for ask in (session.ping, session.budget, lambda: frame.count().release(epsilon=0.1)):
        refused(ask, errors.RefusedError, "revoked alice's access")
    refused(session.reconnect, errors.RefusedError, "revoked")


def test_revocation_bites_while_a_question_is_computed(owner, session, monkeypatch):
    begun, go_on, real = threading.Event(), threading.Event(), release.seal

    def slow(*args):
        begun.set()
        assert go_on.wait(20)
        return real(*args)

    monkeypatch.setattr(release, "seal", slow)
    pending = session["patients"].count().release(epsilon=0.1, block=False)
    assert begun.wait(20)
    owner.revoke("alice")
    go_on.set()
    with pytest.raises(errors.RefusedError, match="revoked"):
        pending.get(20)


def test_after_a_revocation_a_new_invitation_goes_on_with_the_old_account(owner, session):
    session["patients"].count().release(epsilon=0.4)
    owner.revoke("alice")
    owner.invite("alice", budgets={"clinic": 1.0}, path="second.syft")
    with lab.connect("second.syft") as again:
        assert again.budget().spent == {"clinic": 0.4}
        assert again["patients"].count().release(epsilon=0.4).value is not None
        assert again.budget().spent == {"clinic": 0.4}  # the same question: free


def test_a_second_owner_of_the_same_name_needs_an_alias(owner, session, home, monkeypatch, patients, terms):
    monkeypatch.setenv("SYFT_LAB_HOME", str(home / "other"))
    other = lab.Owner.start("hospital-a")
    try:
        other.publish(patients, name="patients", budget=lab.Budget(1), **terms)
        other.invite("alice", path="other.syft")
        monkeypatch.setenv("SYFT_LAB_HOME", str(home / "state"))
        refused(lambda: lab.connect("other.syft"), errors.UsageError, "--as NAME")
        with lab.connect("other.syft", alias="hospital-a2") as second:
            assert second.fingerprint != session.fingerprint
    finally:
        other.stop()


def test_an_analyst_rotates_keys_and_the_old_ones_are_refused(owner, session, home):
    folder = home / "state" / "connections" / "hospital-a"
    old = (folder / "keys.json").read_bytes()
    session.rotate_keys()
    assert session.ping() > 0
    assert (folder / "keys.json").read_bytes() != old
    session.close()
    (folder / "keys.json").write_bytes(old)
    refused(lambda: lab.connect("hospital-a"), errors.KeyMismatchError, "newer keys")


def test_a_rotation_whose_reply_was_lost_is_finished_on_the_next_connection(owner, session, home):
    folder = home / "state" / "connections" / "hospital-a"
    old = (folder / "keys.json").read_bytes()
    session.rotate_keys()
    session.close()
    shutil.copy(folder / "keys.json", folder / "next-keys.json")
    (folder / "keys.json").write_bytes(old)
    with lab.connect("hospital-a") as again:
        assert again.ping() > 0
    assert not (folder / "next-keys.json").exists()


def test_an_owner_rotates_in_two_steps_and_who_connected_in_between_goes_on(owner, session, home):
    fingerprint = session.fingerprint
    owner.invite("bob")
    lab.connect("bob.syft", alias="as-bob").close()
    owner.rotate_keys()
    session.reconnect()  # alice learns the next key; bob does not
    owner.rotate_keys(activate=True)
    with lab.connect("hospital-a") as again:
        assert again.ping() > 0
        assert again.fingerprint == fingerprint
    refused(lambda: lab.connect("as-bob"), errors.KeyMismatchError, "not with the owner's key")
    owner.audit.verify()


def test_an_enrolment_whose_reply_was_lost_is_answered_as_before(owner, home):
    lab.connect("alice.syft").close()
    folder = home / "state" / "connections" / "hospital-a"
    invitation = Invitation.read(home / "alice.syft")
    from syft_lab.analyst.enrol import _mark

    pending = folder / f"enrolling-{invitation.keys.fingerprint[:4]}-{_mark(invitation.id)}.json"
    shutil.move(folder / "keys.json", pending)
    (folder / "trust.json").unlink()
    with lab.connect("alice.syft") as again:
        assert again.ping() > 0
    assert list(owner.audit.log().kind).count("enrolled") == 1


def test_a_broken_link_is_mended_by_the_next_question(owner, session):
    session.ping()
    owner.stop()
    again = lab.Owner.start("hospital-a")
    try:
        assert session["patients"].count().release(epsilon=0.1).value is not None
    finally:
        again.stop()


def test_an_owner_that_is_gone_is_told_at_once(owner, session):
    session.ping()
    owner.stop()
    refused(session.budget, errors.ConnectError, "owner")


def test_a_closed_session_says_so(session):
    question = session["patients"].count()
    session.close()
    session.close()
    assert "closed" in repr(session)
    assert "closed" in session._repr_html_()
    for ask in (session.ping, session.budget, session.reconnect, lambda: question.release(0.1), lambda: question.price(0.1)):
        refused(ask, errors.ConnectionLost, "%connect hospital-a")


def test_a_file_that_has_a_connections_name_is_not_taken_for_an_invitation(session, home):
    (home / "hospital-a").write_text("notes")
    with lab.connect("hospital-a") as again:
        assert again.ping() > 0


def test_nothing_that_is_shown_holds_a_secret(owner, session, home):
    shown = owner.invite("bob")
    secret = Invitation.read(home / "bob.syft").secret
    said = repr(shown) + shown._repr_html_() + repr(owner) + owner._repr_html_() + repr(session) + session._repr_html_()
    for hidden in (secret, owner.keys.curve_secret, session._keys.curve_secret):
        assert hidden not in said
        assert hidden.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") not in said


def test_listening_everywhere_needs_an_address_to_give_out(home):
    with pytest.raises(errors.UsageError, match="--advertise"):
        lab.Owner.start("hospital-d", listen="0.0.0.0:0")
    owner = lab.Owner.start("hospital-d", listen="127.0.0.1:0", advertise="data.example:7000")
    assert owner.address == "data.example:7000"
    owner.stop()
    again = lab.Owner.start("hospital-d")
    assert again.address == "data.example:7000"
    again.stop()


def test_a_taken_port_is_one_line(owner, home):
    with pytest.raises(errors.UsageError, match="--listen"):
        lab.Owner.start("hospital-b", listen=owner.address)
    for odd in ("here", "1.2.3.4", "host:port", "127.0.0.1:70000"):
        with pytest.raises(errors.UsageError, match="host:port"):
            lab.Owner.start("hospital-c", listen=odd)


def test_closing_a_link_that_is_full_breaks_what_is_being_sent_and_cancels_nobody():
    """zmq.asyncio cancels pending sends when a socket closes; a task that nobody cancelled must not end as cancelled."""

    async def work():
        keys = Keys.generate()
        with zmq.Context() as context, context.socket(zmq.ROUTER) as deaf:  # it takes the handshake, and reads nothing
            deaf.curve_server, deaf.curve_secretkey, deaf.rcvhwm, deaf.linger = True, keys.curve_secret.encode(), 1, 0
            port = deaf.bind_to_random_port("tcp://127.0.0.1")
            transport = await ZmqTransport.connect(f"127.0.0.1:{port}", keys.public.curve, Keys.generate(), 5)
            sends = []
            while True:
                sends.append(asyncio.create_task(transport.send([b"x" * (1 << 20)])))
                done, _ = await asyncio.wait(sends[-1:], timeout=0.5)
                if not done:
                    break
            transport.close()
            with pytest.raises(errors.ConnectionLost):
                await sends[-1]
            assert not sends[-1].cancelled()
            with pytest.raises(errors.ConnectionLost):
                await transport.send([b"M"])

    asyncio.run(work())
