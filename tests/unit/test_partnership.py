"""The terms of a federation, and the signed offers of its parties, as strangers may send them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab import canonical
from syft_lab.errors import LabError, UsageError, VerificationError, WireError
from syft_lab.identity import Keys, fingerprint
from syft_lab.partnership import Member, Offer, Partnership, offers, parse, reached

KEYS = [Keys.generate() for _ in range(3)]
NAMES = ("hospital-a", "hospital-b", "hospital-c")
ANALYST = [Keys.generate().public.signing for _ in NAMES]  # at each owner another
MEMBERS = tuple(Member(n, k.public.signing, a) for n, k, a in zip(NAMES, KEYS, ANALYST, strict=True))
TERMS = Partnership(MEMBERS, "study 12")
SPACE = "0f" * 16
CURVE = KEYS[0].public.curve


def sent(terms):
    return canonical.dumps(terms.to_json())


def test_terms_come_back_as_they_were_and_their_id_covers_each_of_them():
    assert parse(sent(TERMS)) == TERMS
    others = [
        Partnership(MEMBERS, "study 13"), Partnership(MEMBERS, "study 12", days=31), Partnership(MEMBERS, "study 12", fraction=10),
        Partnership(MEMBERS[::-1], "study 12"), Partnership((*MEMBERS[:2], MEMBERS[2]._replace(name="hospital-d")), "study 12"),
        *(Partnership((*MEMBERS[:2], MEMBERS[2]._replace(**{key: Keys.generate().public.signing})), "study 12") for key in
          ("signing", "analyst")),
    ]  # fmt: skip
    assert len({TERMS.id, *(o.id for o in others)}) == 8
    assert TERMS.digest == f"sha256:{TERMS.id}"


def test_an_owner_reads_who_what_for_and_who_must_not_collude():
    text = TERMS.text()
    assert all(m.name in text and m.fingerprint in text and fingerprint(m.analyst) in text for m in MEMBERS)
    assert "any two of these owners together\n#     could open everything" in text
    assert text.isascii()  # what is not would be marked as a deception
    assert max(map(len, text.splitlines())) < 78
    assert "30 days" in text
    assert "ABY3, semi-honest" in TERMS.badge


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"members": MEMBERS[:2]}, "3 different owners"),
        ({"members": (*MEMBERS[:2], MEMBERS[0])}, "3 different owners"),
        ({"members": (*MEMBERS[:2], MEMBERS[0]._replace(name="other"))}, "same key"),
        ({"members": (*MEMBERS[:2], MEMBERS[2]._replace(name="No Name"))}, "an owner's name"),
        ({"purpose": " "}, "say what for"),
        ({"purpose": "x" * 2001}, "say what for"),
        ({"days": 0}, "whole days"),
        ({"days": 400}, "whole days"),
        ({"fraction": 17}, "even number of bits"),
        ({"fraction": 20}, "even number of bits"),
        ({"protocol": "spdz"}, "no protocol 'spdz'"),
        ({"security": "malicious"}, "security 'malicious'"),
    ],
)
def test_terms_that_can_not_be_say_why(change, words):
    with pytest.raises(UsageError, match=words):
        Partnership(**{"members": MEMBERS, "purpose": "study 12", **change}).check()


@pytest.mark.parametrize(
    "found",
    [
        [], {}, {**TERMS.to_json(), "more": 1}, {**TERMS.to_json(), "members": "abc"}, {**TERMS.to_json(), "members": [["a"]] * 3},
        {**TERMS.to_json(), "members": [["a", "zz"]] * 3}, {**TERMS.to_json(), "members": [[1, "00" * 32, "00" * 32]] * 3},
        {**TERMS.to_json(), "members": [["a", "00" * 32, "zz"]] * 3}, {**TERMS.to_json(), "members": [["a", "00" * 32]] * 3},
        {**TERMS.to_json(), "purpose": 7}, {**TERMS.to_json(), "protocol": None},
    ],
)  # fmt: skip
def test_malformed_terms_are_refused(found):
    with pytest.raises(WireError):
        parse(json.dumps(found).encode())


@given(st.binary(max_size=300) | st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists).map(
    lambda v: json.dumps({**TERMS.to_json(), "members": v, "days": v}).encode()))  # fmt: skip
def test_whatever_comes_is_terms_or_an_error_of_the_tree(data):
    with pytest.raises(LabError):
        parse(data)


def offered(space=SPACE, terms=TERMS, keys=KEYS):
    ports = ({1: 7001, 2: 7002}, {2: 7003}, {})
    return [
        Offer(CURVE, f"host{i}.example", p).signed(k, terms.id, space, i)
        for i, (k, p) in enumerate(zip(keys, ports, strict=True))
    ]


def test_offers_that_their_members_signed_are_taken_in():
    found = offers(canonical.dumps(offered()), TERMS, SPACE)
    assert [o.host for o in found] == ["host0.example", "host1.example", "host2.example"]
    asked = []

    def resolve(host):
        asked.append(host)
        return "10.0.0.7"

    assert reached(found, 2, resolve) == {0: "10.0.0.7:7002", 1: "10.0.0.7:7003"}
    assert asked == ["host0.example", "host1.example"]
    assert reached(found, 0, resolve) == {}
    with pytest.raises(WireError, match="no port"):
        reached([found[1], found[1], found[2]], 1, resolve)


@pytest.mark.parametrize(
    "change",
    [
        {"curve": KEYS[1].public.curve}, {"host": "10.0.0.9"}, {"ports": [[1, 7009], [2, 7002]]}, {"signature": "00" * 64},
        {"signature": "zz"}, {"curve": "short"},
    ],
)  # fmt: skip
def test_an_offer_that_was_changed_on_the_way_is_refused_by_name(change):
    found = offered()
    found[0].update(change)
    with pytest.raises(VerificationError, match="hospital-a"):
        offers(canonical.dumps(found), TERMS, SPACE)


def test_an_offer_holds_for_its_member_its_session_and_its_federation_alone():
    for found, space in (
        (offered(space="1f" * 16), SPACE),
        (offered(terms=Partnership(MEMBERS, "another")), SPACE),
        (offered(keys=[KEYS[1], KEYS[0], KEYS[2]]), SPACE),
        ([offered()[1], *offered()[1:]], SPACE),
    ):
        with pytest.raises(VerificationError):
            offers(canonical.dumps(found), TERMS, space)


@given(st.binary(max_size=300) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda s: st.lists(s) |
    st.dictionaries(st.sampled_from(["curve", "host", "ports", "signature"]), s)).map(lambda v: json.dumps([v] * 3).encode()))  # fmt: skip
def test_whatever_comes_as_offers_is_an_error_of_the_tree(data):
    with pytest.raises(LabError):
        offers(data, TERMS, SPACE)
