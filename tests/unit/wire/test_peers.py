"""Strangers have few places, and a crowd from one address takes none of others."""

from syft_lab.wire import peers
from syft_lab.wire.peers import Strangers


def test_a_crowd_from_one_address_ends_no_stranger_of_another(monkeypatch):
    ended = []
    monkeypatch.setattr(peers, "origin", lambda descriptor: "far" if descriptor < 3 else "crowd")
    monkeypatch.setattr(peers, "shut", ended.append)
    strangers = Strangers(8)
    for descriptor in range(500):
        strangers.came(descriptor, 0.0)
    assert len(strangers) == 8
    assert len(ended) == 492
    assert not {0, 1, 2} & set(ended)
    strangers.sweep(100.0)
    assert len(strangers) == 0
    assert {0, 1, 2} <= set(ended)
