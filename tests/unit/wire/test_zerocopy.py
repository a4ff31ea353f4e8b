"""Messages without a copy are let go, whichever threads send the first ones."""

import subprocess
import sys

import pytest

RACE = """
import sys, threading, time
import zmq, zmq.utils.garbage as garbage
from syft_lab.wire import zerocopy

class Slow(zmq.Context):
    def __init__(self, *given):
        if not given:
            collects = isinstance(threading.current_thread(), garbage.GarbageCollectorThread)
            time.sleep(0.2 if collects else 0.6)  # all threads are on their way before the first has made one
        super().__init__(*given)

garbage.zmq.Context = Slow

def send(count):
    if "begin" in sys.argv:
        zerocopy.begin()
    for _ in range(count):
        zmq.Frame(b"x", copy=False, copy_threshold=0)

first = [threading.Thread(target=send, args=(1,)) for _ in range(2)]
first[0].start()
while not garbage.gc.is_alive(): time.sleep(0.001)  # its thread is there, and makes its context
first[1].start()
for each in first: each.join()
many = threading.Thread(target=send, args=(5000,), daemon=True)
many.start()
many.join(3)
print(many.is_alive(), flush=True)
__import__("os")._exit(0)
"""
OPENED = """
import asyncio
from zmq.utils.garbage import gc
from syft_lab.identity import Keys
from syft_lab.mpc.links import Mesh
from syft_lab.wire.link import Hub
from syft_lab.wire.zmq_link import ZmqServer, ZmqTransport

async def work():
    assert not gc.is_alive()
    made = %s
    assert gc.is_alive()
    made.close()

asyncio.run(work())
"""


def outcome(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_two_threads_that_send_first_at_one_moment_stop_nothing():
    assert outcome(RACE, "begin") == "False"


def test_without_that_they_do():
    """pyzmq's own fault: once it is mended, `zerocopy` can go."""
    assert outcome(RACE) == "True"


@pytest.mark.parametrize("made", [
    "ZmqTransport('127.0.0.1:9', Keys.generate().public.curve, Keys.generate())",
    "ZmqServer(Keys.generate(), list, Hub.__new__(Hub))",
    "Mesh(0, Keys.generate(), ('a', 'b', 'c'))"])  # fmt: skip
def test_whatever_sends_begins_it(made):
    outcome(OPENED % made)
