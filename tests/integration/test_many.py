"""Fifty analysts at once: all are answered, nobody waits for ever, and the books balance."""

import contextlib
import threading

import pytest

import syft_lab as lab
from syft_lab import errors

ANALYSTS = 50


@pytest.mark.slow
def test_fifty_analysts_at_once_are_all_answered_and_the_cap_holds_exactly(owner):
    owner.policy.allow("dp", dataset="patients", epsilon_per_query=1)
    names = [f"analyst-{i}" for i in range(ANALYSTS)]
    for name in names:
        owner.invite(name, budgets={"clinic": 1.0})
    barrier = threading.Barrier(ANALYSTS)
    answered, refused, broken = [], [], []

    def work(name):
        try:
            with lab.connect(f"{name}.syft", alias=f"as-{name}", timeout=20) as session:
                frame = session["patients"]
                barrier.wait(120)
                for question in (frame.count(), frame.age.mean(), frame.groupby("ward").size()):
                    try:
                        answered.append(question.release(epsilon=0.025).receipt.verify()["analyst"])
                    except errors.BudgetError:
                        refused.append(name)
        except BaseException as error:
            broken.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert not broken
    # The cap of 3 is 120 questions at 0.025: exactly so many are answered of the 150 asked.
    assert (len(answered), len(refused)) == (120, 30)
    gauge = owner.budgets.gauges[0]
    assert (gauge.spent, gauge.reserved) == (3.0, 0.0)
    assert owner.audit.verify()


def test_a_slow_analyst_holds_up_nobody(owner, session):
    """One analyst asks much and reads nothing; another is answered all the same."""
    import zmq

    from syft_lab.wire import codec
    from syft_lab.wire.messages import Ping

    owner.invite("slow")
    slow = lab.connect("slow.syft", alias="as-slow")
    keys, trust = slow._keys, slow._trust
    slow.close()
    context = zmq.Context()
    greedy = context.socket(zmq.DEALER)
    greedy.linger = 0
    greedy.rcvhwm, greedy.sndtimeo = 1, 1000
    greedy.curve_serverkey = trust.curve_keys[0].encode()
    greedy.curve_publickey, greedy.curve_secretkey = keys.public.curve.encode(), keys.curve_secret.encode()
    greedy.connect(f"tcp://{owner.address}")
    header = codec.encode(Ping(), 1)[0]
    with contextlib.suppress(zmq.Again):  # cut off, which a socket that reads nothing never notices
        for _ in range(2000):
            greedy.send_multipart([b"M", header, bytes(50_000)])
    assert session.ping() < 20
    assert session["patients"].count().release(epsilon=0.1).value is not None
    greedy.close()
    context.term()
