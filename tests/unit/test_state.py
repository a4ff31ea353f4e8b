"""What is written is for one user alone, under any umask; and folders that others may enter are closed."""

import os
import stat
import threading

import pytest

from syft_lab import state
from syft_lab.errors import StateError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o277])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_folders_and_the_parents_that_had_to_be_made_are_private(home, umask):
    state.make_private(state.owner_folder("a"))
    state.make_private(home / "elsewhere" / "deep" / "er")
    made = [
        state.home(),
        state.home() / "owners",
        state.owner_folder("a"),
        *(home / "elsewhere").rglob("*"),
        home / "elsewhere",
    ]
    assert {mode(place) for place in made} == {0o700}


def test_files_are_private_whole_and_leave_nothing_when_they_are_not(tmp_path, umask):
    place = tmp_path / "file"
    with state.writing(place) as out:
        out.write(b"first")
    with pytest.raises(TypeError), state.writing(place) as out:
        out.write(b"%d" % "no number")
    assert place.read_bytes() == b"first"
    with state.given(tmp_path / "export") as out:
        out.write(b"export")
    assert [(p.name, mode(p) & 0o077) for p in sorted(tmp_path.iterdir())] == [("export", 0), ("file", 0)]


def test_a_file_that_was_there_for_others_is_written_over_and_closed(tmp_path):
    place = tmp_path / "export"
    place.write_bytes(b"an older and longer one")
    place.chmod(0o666)
    with state.given(place) as out:
        out.write(b"new")
    assert (place.read_bytes(), mode(place)) == (b"new", 0o600)


def test_a_pipe_may_be_exported_to(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o644)
    heard = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with state.given(tmp_path / "pipe") as out:
        out.write(b"through")
    reader.join(10)
    assert heard == [b"through"]


def test_a_folder_of_ours_that_others_may_enter_is_closed_and_said(home):
    folder = state.owner_folder("a")
    folder.mkdir(parents=True)
    for place in (state.home(), state.home() / "owners", folder):
        place.chmod(0o777)
    with pytest.warns(UserWarning, match="others had access to") as said:
        state.make_private(folder)
    assert [mode(place) for place in (state.home(), state.home() / "owners", folder)] == [0o755, 0o700, 0o700]
    assert len(said) == 3


def test_a_folder_of_another_user_is_refused(home, monkeypatch):
    folder = state.owner_folder("a")
    folder.mkdir(parents=True)
    folder.chmod(0o755)

    def forbidden(*_, **__):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.chmod", forbidden)
    with pytest.raises(StateError, match="another user's folder"):
        state.make_private(folder)


def test_the_lock_is_private(home, umask):
    folder = state.make_private(state.owner_folder("a"))
    held = state.lock(folder, "it")
    assert mode(folder / "lock") == 0o600
    held.release()
