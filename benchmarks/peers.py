"""What SPU and CrypTen take for the same work, in the same run, where `make peers` has built the Python that they need.

Theirs is an environment of its own (``.peers``): SPU wants numpy 1. One process a party, over loopback, one thread of torch;
timed is what benchmarks/aby3.py times: from inputs that are shared to shares of the result. Their links are not encrypted.
Run by that other Python as ``peers.py PEER WORK RANK PORT…``, it is one party, and needs nothing of ours.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

PYTHON = Path(__file__).parents[1] / ".peers" / "bin" / "python"
PARTIES = {"spu": (3, "SPU 0.9.5, ABY3"), "crypten": (2, "CrypTen 0.4.1, two parties, the first of them trusted")}
ROUNDS, PATIENCE = 3, 300.0
ANSWER = "seconds: "
SHAPES = {
    "matmul 1000³": ((1000, 1000), (1000, 1000)), "relu 1 M": ((1_000_000,),), "x < 0, 1 M": ((1_000_000,),),
    "sigmoid 100 k": ((100_000,),), "exp 100 k": ((100_000,),), "softmax 128×1000": ((128, 1000),),
    "max of 10 000×10": ((10_000, 10),),
}  # fmt: skip


def there() -> list[str]:
    """The peers that can be run here."""
    return list(PARTIES) if PYTHON.exists() else []


def seconds(peer: str, work: str) -> float:
    """The best of several runs of the slowest party; NaN where the peer came to no end."""
    count, _ = PARTIES[peer]
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        ports = [str(s.getsockname()[1]) for s in held]
    command = [str(PYTHON), "-W", "ignore", __file__, peer, work]
    parties = [subprocess.Popen([*command, str(rank), *ports], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
               for rank in range(count)]  # fmt: skip
    try:
        said = [p.communicate(timeout=PATIENCE)[0] for p in parties]
        answers = [next(line for line in s.splitlines() if line.startswith(ANSWER)) for s in said]  # they log there too
        return max(float(json.loads(a.removeprefix(ANSWER))) for a in answers)
    except (subprocess.TimeoutExpired, StopIteration):
        return float("nan")
    finally:
        for party in parties:
            party.kill()


# In the other Python: one party


def _inputs(work: str) -> list[Any]:
    import numpy as np

    draw = np.random.default_rng(0)
    return [draw.standard_normal(s).astype(np.float32) for s in SHAPES[work]]


def _best(run: Callable[[], Any], together: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        together()
        begun = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begun)
    return best


def spu(work: str, rank: int, ports: list[int]) -> float:
    """SPU's ABY3, in its ring of 64 bits."""
    import jax
    import jax.numpy as jnp
    import spu as library
    from spu import libspu
    from spu.utils import frontend

    fun = {
        "matmul 1000³": jnp.matmul, "relu 1 M": jax.nn.relu, "x < 0, 1 M": lambda x: x < 0, "sigmoid 100 k": jax.nn.sigmoid,
        "exp 100 k": jnp.exp, "softmax 128×1000": lambda x: jax.nn.softmax(x, axis=1),
        "max of 10 000×10": lambda x: jnp.max(x, axis=1),
    }[work]  # fmt: skip
    given, secret = _inputs(work), libspu.Visibility.VIS_SECRET
    config = libspu.RuntimeConfig(protocol=libspu.ProtocolKind.ABY3, field=libspu.FieldType.FM64)
    shares = [library.Io(len(ports), config).make_shares(x, secret) for x in given]
    names = [f"in{i}" for i in range(len(given))]
    program, _ = frontend.compile(frontend.Kind.JAX, fun, given, {}, names, [secret] * len(given),
                                  lambda outs: [f"out{i}" for i in range(len(outs))])  # fmt: skip
    desc = libspu.link.Desc()
    for index, port in enumerate(ports):
        desc.add_party(f"party{index}", f"127.0.0.1:{port}")
    link = libspu.link.create_brpc(desc, rank)
    runtime = library.Runtime(link, config)

    def together() -> None:
        for name, share in zip(names, shares, strict=True):
            runtime.set_var(name, share[rank])
        link.barrier()

    found = _best(lambda: runtime.run(program), together)
    link.barrier()
    return found


def crypten(work: str, rank: int, ports: list[int]) -> float:
    """CrypTen; its first party draws what the others can't know, and sees what is opened."""
    os.environ.update(DISTRIBUTED_BACKEND="gloo", RENDEZVOUS=f"tcp://127.0.0.1:{ports[0]}", WORLD_SIZE=str(len(ports)),
                      RANK=str(rank))  # fmt: skip
    import torch.onnx

    gone = types.ModuleType("torch.onnx._internal.registration")  # imported for models in ONNX; newer torch has it no longer
    gone.registry = None  # type: ignore[attr-defined]
    sys.modules.setdefault(gone.__name__, gone)
    import crypten as library

    torch.set_num_threads(1)
    library.init()
    fun = {
        "matmul 1000³": lambda x, y: x.matmul(y), "relu 1 M": lambda x: x.relu(), "x < 0, 1 M": lambda x: x < 0,
        "sigmoid 100 k": lambda x: x.sigmoid(), "exp 100 k": lambda x: x.exp(), "softmax 128×1000": lambda x: x.softmax(1),
        "max of 10 000×10": lambda x: x.max(dim=1, one_hot=False)[0],
    }[work]  # fmt: skip
    given = [library.cryptensor(torch.from_numpy(x)) for x in _inputs(work)]
    return _best(lambda: fun(*given), library.comm.get().barrier)


if __name__ == "__main__":
    peer, work, rank, *ports = sys.argv[1:]
    one = {"spu": spu, "crypten": crypten}[peer]
    sys.stdout.write(f"\n{ANSWER}{json.dumps(one(work, int(rank), [int(p) for p in ports]))}\n")
    sys.stdout.flush()
