"""Names, keys, invitations and the trust file."""

import json
import os
import pprint
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.lib.pretty import pretty

from syft_lab.errors import InvitationError, LabError, StateError, UsageError, WireError
from syft_lab.identity import Invitation, Keys, PublicKeys, Trust, check_name, expiry


def invitation(keys, **changes):
    terms = {"owner": "hospital-a", "curve": keys.public.curve, "signing": keys.public.signing, "addresses": ("h:1",),
             "analyst": "alice", "role": "analyst", "expires": expiry("7d"), "secret": Keys.generate().curve_secret}  # fmt: skip
    return Invitation(**{**terms, **changes}).signed_by(keys)


@pytest.mark.parametrize("name", ["a", "hospital-a", "x.y_z-1", "a" * 64])
def test_good_names_pass(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a b", "a/b", "..", "a" * 65, "ä", None, 3, "a\n"])
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match="lower-case"):
        check_name(name)


def test_keys_are_made_once_and_only_this_user_can_read_them(tmp_path):
    path = tmp_path / "keys.json"
    first = Keys.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keys.load_or_create(path).public == first.public
    assert repr(first) == f"<Keys {first.public.fingerprint}>"
    assert first.curve_secret not in repr(first)


def test_keys_that_others_can_read_are_refused(tmp_path):
    path = tmp_path / "keys.json"
    Keys.load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(StateError, match="chmod 600"):
        Keys.load(path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"curve_secret": 1, "signing_seed": "00"}'])
def test_damaged_keys_are_one_error(tmp_path, content):
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(StateError):
        Keys.load(path)


def test_a_signature_holds_for_its_purpose_data_and_key_only():
    keys = Keys.generate()
    signature = keys.sign("head", b"data")
    assert keys.public.verify("head", b"data", signature)
    assert not keys.public.verify("enrol", b"data", signature)
    assert not keys.public.verify("head", b"other", signature)
    assert not Keys.generate().public.verify("head", b"data", signature)
    assert not keys.public.verify("head", b"data", b"short")


def test_the_fingerprint_survives_a_new_curve_key():
    keys = Keys.generate()
    turned = keys.with_new_curve()
    assert turned.public.curve != keys.public.curve
    assert turned.public.fingerprint == keys.public.fingerprint


@pytest.mark.parametrize(("curve", "signing"), [("x" * 39, "0" * 64), ("x" * 40, "0" * 63), (" " * 40, "0" * 64), (None, None)])
def test_public_keys_of_another_form_are_refused(curve, signing):
    with pytest.raises(WireError):
        PublicKeys(curve, signing)


def test_an_invitation_is_written_for_this_user_and_read_again(tmp_path):
    keys = Keys.generate()
    written = invitation(keys)
    path = tmp_path / "alice.syft"
    written.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Invitation.read(path) == written


@pytest.mark.parametrize(
    "change", [{"owner": "other"}, {"addresses": ("evil:1",)}, {"role": "guest"}, {"expires": expiry("2w")}]
)
def test_a_changed_invitation_is_refused(tmp_path, change):
    path = tmp_path / "alice.syft"
    replace(invitation(Keys.generate()), **change).write(path)
    with pytest.raises(InvitationError, match="not a whole invitation"):
        Invitation.read(path)


@given(
    st.dictionaries(
        st.sampled_from(["owner", "curve", "addresses", "expires", "secret", "signature", "x"]), st.text() | st.none()
    )
)
def test_a_fuzzed_invitation_is_one_error(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("fuzz") / "alice.syft"
    invitation(Keys.generate()).write(path)
    content = json.loads(path.read_text())
    content.update(changes)
    if not changes:
        content.pop("owner")
    path.write_text(json.dumps(content))
    with pytest.raises(LabError):
        Invitation.read(path)


def test_a_missing_invitation_says_so(tmp_path):
    with pytest.raises(InvitationError, match="no file"):
        Invitation.read(tmp_path / "none.syft")


def test_an_invitation_knows_when_it_expired():
    keys = Keys.generate()
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    assert invitation(keys, expires=past).expired
    assert not invitation(keys).expired


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7y", "0d", "99999d"])
def test_odd_durations_are_refused(text):
    with pytest.raises(UsageError):
        expiry(text)


def test_the_trust_file_comes_back_as_it_was(tmp_path):
    keys = Keys.generate().public
    trust = Trust("hospital-a", "alice", keys.signing, (keys.curve,), ("h:1",), "id", {"size": 1})
    trust.save(tmp_path)
    assert Trust.load(tmp_path) == trust
    os.truncate(tmp_path / "trust.json", 10)
    with pytest.raises(StateError):
        Trust.load(tmp_path)


def test_an_invitation_shows_its_secret_to_nobody_who_did_not_ask_for_it(tmp_path):
    made = invitation(Keys.generate())
    shown = [repr(made), str(made), f"{made}", pprint.pformat(made), pretty(made), f"{[made]}", repr({"made": made})]
    assert not [text for text in shown if made.secret in text]
    assert all("alice" in text for text in shown)
    made.write(tmp_path / "alice.syft")
    assert made.secret in (tmp_path / "alice.syft").read_text()
    assert Invitation.read(tmp_path / "alice.syft") == made
