"""The link that says which bundle predicts."""

from pathlib import Path

from mlops_assets.serving.active import activate, active_bundle


def test_the_link_follows_the_last_activation(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    assert active_bundle(tmp_path) is None
    activate(tmp_path / "1")
    assert active_bundle(tmp_path) == tmp_path / "1"
    activate(tmp_path / "2")
    activate(tmp_path / "2")
    assert active_bundle(tmp_path) == tmp_path / "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "champion"]


def test_what_an_interrupted_activation_left_is_no_obstacle(tmp_path: Path) -> None:
    import os

    (tmp_path / "1").mkdir()
    (tmp_path / f".champion.{os.getpid()}").symlink_to("7")
    activate(tmp_path / "1")
    assert active_bundle(tmp_path) == tmp_path / "1"


def test_the_folder_of_the_bundles_may_move(tmp_path: Path) -> None:
    (tmp_path / "old" / "1").mkdir(parents=True)
    activate(tmp_path / "old" / "1")
    (tmp_path / "old").rename(tmp_path / "new")
    assert active_bundle(tmp_path / "new") == tmp_path / "new" / "1"
