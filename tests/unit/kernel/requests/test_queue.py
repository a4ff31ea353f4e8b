"""The queue is fair: whoever has the least in hand is next, and one slot is always somebody else's."""

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from syft_lab.kernel.requests.queue import FairQueue


class Gate:
    """Work that begins, says so, and ends when it is let go."""

    def __init__(self, queue):
        self.queue, self.began, self.go = queue, [], {}
        self.changed = threading.Condition()

    def put(self, analyst, name):
        self.go[name] = threading.Event()
        assert self.queue.put(analyst, lambda: self._work(name))

    def _work(self, name):
        with self.changed:
            self.began.append(name)
            self.changed.notify_all()
        self.go[name].wait(30)

    def until(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.began) >= count, 10), self.began

    def end(self):
        for event in self.go.values():
            event.set()
        self.queue.stop()


def test_one_analyst_never_holds_every_slot():
    gate = Gate(FairQueue(3))
    try:
        for i in range(10):
            gate.put("greedy", f"g{i}")
        gate.until(2)
        time.sleep(0.05)  # nothing more may begin
        assert gate.began == ["g0", "g1"]
        gate.put("late", "l0")
        gate.until(3)
        assert gate.began[2] == "l0"
    finally:
        gate.end()


def test_ten_analysts_take_turns_however_much_each_filed():
    gate = Gate(FairQueue(2))
    try:
        gate.put("a", "a0")
        gate.until(1)
        for i in range(5):
            gate.put("a", f"a{i + 1}")
        for name in "bcdefghij":
            gate.put(name, f"{name}0")
        for count in range(1, 11):
            gate.until(min(count + 1, 10))
            gate.go[gate.began[count - 1]].set()
        assert {n[0] for n in gate.began[:10]} == set("abcdefghij")
    finally:
        gate.end()


def test_ten_analysts_with_twenty_jobs_each_are_served_in_turns():
    """One slot, so that the order is told by the queue alone: nobody is ever more than one ahead of anybody."""
    queue, ran, done, start = FairQueue(1), [], threading.Event(), threading.Event()

    def work(analyst):
        ran.append(analyst)
        if len(ran) == 200:
            done.set()

    queue.put("blocker", lambda: start.wait(10))
    for i in range(200):
        queue.put(f"analyst{i // 20}", lambda a=f"analyst{i // 20}": work(a))
    start.set()
    assert done.wait(20)
    queue.stop()
    counts = dict.fromkeys(set(ran), 0)
    for analyst in ran:
        counts[analyst] += 1
        assert max(counts.values()) - min(counts.values()) <= 1


def test_stopping_drops_what_waits_and_takes_nothing_more():
    gate = Gate(FairQueue(1))
    gate.put("a", "a0")
    gate.put("a", "a1")
    gate.until(1)
    assert gate.queue.waiting("a") == 1
    gate.go["a0"].set()
    gate.queue._stopped = True
    gate.end()
    assert gate.queue.put("a", lambda: None) is False
    assert gate.queue.waiting("b") == 0


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4))
def test_everything_that_is_put_runs_once(names, slots):
    queue, ran, lock = FairQueue(slots), [], threading.Lock()
    all_done = threading.Event()

    def work(i):
        with lock:
            ran.append(i)
            if len(ran) == len(names):
                all_done.set()

    for i, name in enumerate(names):
        queue.put(name, lambda i=i: work(i))
    assert not names or all_done.wait(10)
    queue.stop()
    assert sorted(ran) == list(range(len(names)))
