"""The bytes of protocol 1: what was sent once must mean the same for ever."""

import dataclasses
import json
from pathlib import Path

import pytest

from syft_lab.errors import VerificationError, WireError
from syft_lab.identity import Keys
from syft_lab.receipt import Receipt
from syft_lab.wire import chunks, codec
from syft_lab.wire.messages import KINDS

WIRE = json.loads((Path(__file__).parent / "wire.json").read_text())
RECEIPTS = json.loads((Path(__file__).parent / "receipts.json").read_text())
REASONS = {"signature": "isn't signed", "inclusion": "isn't in the log", "consistency": "does not continue",
           "earlier signature": "earlier head", "kind": "isn't of the kind", "form": None}  # fmt: skip


def plain(value):
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def test_every_kind_of_message_has_a_vector():
    assert {v["kind"] for v in WIRE["messages"]} == set(KINDS)


def test_the_specification_names_every_message_and_every_field():
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    replies = "".join(rows.values())
    for kind, message in KINDS.items():
        assert f"`{kind}`" in replies, kind
        if kind in rows:
            assert all(f.name in rows[kind] for f in dataclasses.fields(message)), kind


@pytest.mark.parametrize("vector", WIRE["messages"], ids=lambda v: v["kind"])
def test_messages_have_these_bytes_both_ways(vector):
    frames = [bytes.fromhex(f) for f in vector["frames"]]
    message, id = codec.decode(frames)
    assert (message.kind, id) == (vector["kind"], vector["id"])
    assert {f.name: plain(getattr(message, f.name)) for f in dataclasses.fields(message)} == vector["fields"]
    assert [bytes(f) for f in codec.encode(message, id)] == frames


@pytest.mark.parametrize("vector", WIRE["refused"], ids=lambda v: v["why"])
def test_these_headers_are_refused(vector):
    with pytest.raises(WireError):
        codec.read_header(bytes.fromhex(vector["header"]))


def test_a_large_message_is_cut_like_this():
    vector = WIRE["pieces"]
    transfer, payload = bytes.fromhex(vector["transfer"]), [bytes.fromhex(p) for p in vector["payload"]]
    assert chunks.opening(transfer, payload).hex() == vector["opening"]
    assert [[bytes(f).hex() for f in p] for p in chunks.pieces(transfer, payload)] == vector["pieces"]


def test_keys_and_fingerprints_are_these():
    keys = Keys(RECEIPTS["curve_secret"], bytes.fromhex(RECEIPTS["signing_seed"])).public
    assert (keys.signing, keys.fingerprint) == (RECEIPTS["signing"], RECEIPTS["fingerprint"])


@pytest.mark.parametrize("vector", RECEIPTS["receipts"])
def test_these_receipts_verify(vector):
    receipt = Receipt.from_json(vector)
    assert receipt.verify()["analyst"] == "alice"
    assert receipt.to_json() == vector


@pytest.mark.parametrize("vector", RECEIPTS["refused"], ids=lambda v: v["why"])
def test_these_receipts_are_refused_for_this_reason(vector):
    reason = REASONS[vector["why"]]
    if reason is None:
        with pytest.raises(WireError):
            Receipt.from_json(vector["receipt"])
    else:
        with pytest.raises(VerificationError, match=reason):
            Receipt.from_json(vector["receipt"]).verify()
