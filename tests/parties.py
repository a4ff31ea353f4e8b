"""Three parties in threads of this process, over links in memory: the protocols as they run, without sockets."""

from concurrent.futures import ThreadPoolExecutor

import torch

from syft_lab.errors import PartnerError, PartnerGoneError
from syft_lab.mpc import links, sharing, tensor  # noqa: F401 - the rules
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.party import join
from syft_lab.mpc.share import Share

NAMES = ("alice", "bob", "carol")
FRACTION, K = sharing.FRACTION, 32
DEVICE = "cpu"  # where they compute


def run(work, *inputs, wired=None, timeout=20, log=True):
    """What ``work(party, *shares)`` gives at each party, and the parties; ``inputs`` are int64. The first error that is no partner's is raised."""
    split = [sharing.split(x) for x in inputs]
    wired = wired or links.in_memory()

    def one(index):
        party = None
        try:
            party = join(index, NAMES, wired[index], DEVICE, timeout=timeout, log=log)
            shares = [Shared(s[index].to(DEVICE), s[(index + 1) % 3].to(DEVICE)) for s in split]
            return here(work(party, *shares)), party
        finally:
            for link in wired[index].values():
                link.close()

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(one, index) for index in range(3)]
        errors = [f.exception() for f in futures]
    for error in sorted(filter(None, errors), key=lambda e: (isinstance(e, PartnerError), isinstance(e, PartnerGoneError))):
        raise error
    answers, parties = zip(*(f.result() for f in futures), strict=True)
    return list(answers), list(parties)


def here(answer):
    """The same, with its tensors on the CPU."""
    if isinstance(answer, torch.Tensor) and not isinstance(answer, Share):
        return answer.cpu()
    if not isinstance(answer, tuple | list):
        return answer
    parts = [here(part) for part in answer]
    return type(answer)(*parts) if hasattr(answer, "_fields") else type(answer)(parts)


def opened(answers):
    """The value behind the parties' shares, which must fit together."""
    for index in range(3):
        assert torch.equal(answers[index].other, answers[(index + 1) % 3].own)
    return sharing.join([a.own for a in answers])


def compute(work, *inputs):
    """``work(fixed, *shares)`` on real numbers: the result as float64, and the parties."""
    answers, parties = run(lambda party, *shares: work(Fixed(party, FRACTION, K), *shares), *map(sharing.encode, inputs))
    return sharing.decode(opened(answers)), parties


def on_shares(work, *inputs):
    """A function of torch tensors, on `Share`s: the result, int64 where it has no fractions, and the parties."""
    whole = []

    def wrapped(fixed, *shares):
        with torch.no_grad():
            made = work(*(Share(s, fixed) for s in shares))
        whole.append(made.whole)
        return made.shared

    answers, parties = run(lambda party, *shares: wrapped(Fixed(party, FRACTION, K), *shares), *map(sharing.encode, inputs))
    found = opened(answers)
    return (found if whole[0] else sharing.decode(found)), parties
