"""The link that says which bundle predicts."""

from pathlib import Path

from mlops_assets.schema.solution import Serving
from mlops_assets.serving.active import (
    CHAMPION_LINK,
    activate,
    champion_link,
    deactivate,
    linked_bundle,
    read_options,
    segment_links,
    write_options,
)
from mlops_assets.serving.folder_store import FolderBundles


def test_the_link_follows_the_last_activation(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    assert linked_bundle(tmp_path, CHAMPION_LINK) is None
    activate(tmp_path / "1", CHAMPION_LINK)
    assert linked_bundle(tmp_path, CHAMPION_LINK) == tmp_path / "1"
    activate(tmp_path / "2", CHAMPION_LINK)
    activate(tmp_path / "2", CHAMPION_LINK)
    assert linked_bundle(tmp_path, CHAMPION_LINK) == tmp_path / "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "champion"]


def test_what_an_interrupted_activation_left_is_no_obstacle(tmp_path: Path) -> None:
    import os

    (tmp_path / "1").mkdir()
    (tmp_path / f".champion.{os.getpid()}").symlink_to("7")
    activate(tmp_path / "1", CHAMPION_LINK)
    assert linked_bundle(tmp_path, CHAMPION_LINK) == tmp_path / "1"


def test_the_folder_of_the_bundles_may_move(tmp_path: Path) -> None:
    (tmp_path / "old" / "1").mkdir(parents=True)
    activate(tmp_path / "old" / "1", CHAMPION_LINK)
    (tmp_path / "old").rename(tmp_path / "new")
    assert linked_bundle(tmp_path / "new", CHAMPION_LINK) == tmp_path / "new" / "1"


def test_a_link_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    activate(tmp_path / "1", CHAMPION_LINK)
    deactivate(tmp_path, CHAMPION_LINK)
    deactivate(tmp_path, CHAMPION_LINK)
    assert linked_bundle(tmp_path, CHAMPION_LINK) is None


def test_the_options_are_the_defaults_until_they_are_written(tmp_path: Path) -> None:
    assert read_options(tmp_path / "new") == Serving()
    write_options(tmp_path / "new", Serving(shadow=True, canary=0.25))
    assert read_options(tmp_path / "new") == Serving(shadow=True, canary=0.25)


def test_segments_have_links_of_their_own(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    activate(tmp_path / "1", CHAMPION_LINK)
    activate(tmp_path / "2", champion_link("JFK"))
    assert linked_bundle(tmp_path, champion_link(None)) == tmp_path / "1"
    assert linked_bundle(tmp_path, champion_link("JFK")) == tmp_path / "2"
    assert segment_links(FolderBundles(tmp_path).aliases()) == [champion_link("JFK")]
    deactivate(tmp_path, champion_link("JFK"))
    assert segment_links(FolderBundles(tmp_path).aliases()) == []
    assert linked_bundle(tmp_path, CHAMPION_LINK) == tmp_path / "1"
