"""The state folder and other users. What another user can do is tried in `tests/integration/test_another_user.py`."""

from pathlib import Path

from mlops_assets.local import permissions


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_folder_that_was_open_is_closed_with_what_is_in_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    (home / "lake").mkdir()
    (home / "lake").chmod(0o755)
    (home / "notifications.jsonl").touch()
    (home / "notifications.jsonl").chmod(0o644)
    (home / "link").symlink_to(tmp_path)
    assert permissions.close_folder(home)
    assert (mode(home), mode(home / "lake"), mode(home / "notifications.jsonl")) == (0o700, 0o700, 0o600)
    assert not permissions.close_folder(home)


def test_one_user_passes_and_nobody_else_gains_a_right(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    permissions.let_pass(folder, 12345)
    permissions.let_pass(folder, 12346)
    before = permissions._access_list(folder, folder.stat().st_mode)
    permissions.let_pass(folder, 12345)
    assert permissions._access_list(folder, folder.stat().st_mode) == before
    # The mask of the access list is shown in place of the group's rights.
    assert mode(folder) == 0o710
    assert not permissions.close_folder(folder)
    rights = {who: given for (tag, who), given in before.items() if tag == permissions._USER}
    assert rights == {12345: 1, 12346: 1}
    assert before[permissions._GROUP, permissions._NOBODY] == before[permissions._OTHERS, permissions._NOBODY] == 0


def test_a_folder_that_everybody_may_pass_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(0o711)
    permissions.let_pass(folder, 12345)
    assert mode(folder) == 0o711
