"""The bundles of a solution in a folder: whole or not at all, found again, and removed only when nobody needs them."""

from pathlib import Path

import pytest
from bundles import record_of

from mlops_assets.clients.bundle_record import ACCEPTANCE_TAG, folder_files
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.schema.solution import Serving
from mlops_assets.serving.bundle_store import StoredBundle, open_bundle_store, prune
from mlops_assets.serving.folder_store import FolderBundles, FolderStore


@pytest.fixture
def bundles(tmp_path: Path) -> FolderBundles:
    """Versions 1 to 9; 3 predicts."""
    bundles = FolderBundles(tmp_path / "serving" / "clinic")
    for version in range(1, 10):
        made = tmp_path / f"made_{version}"
        made.mkdir()
        (made / "model.onnx").write_text(f"model {version}")
        bundles.put(StoredBundle(version, record_of("clinic", version, files=folder_files(made)).sha256), made)
    activate(bundles, 3, "champion")
    return bundles


def activate(bundles: FolderBundles, version: int, alias: str) -> None:
    record, signer = (
        record_of("clinic", version, files=folder_files(bundles.folder / str(version))),
        Signer(bundles.folder.parent / "signing_key"),
    )
    bundles.activate(alias, record, record.sign(signer, "accepted")[ACCEPTANCE_TAG])


def versions(bundles: FolderBundles) -> list[int]:
    return [bundle.version for bundle in bundles.stored()]


def test_a_bundle_is_found_by_what_it_was_put_under_and_listed_with_its_hash(bundles: FolderBundles, tmp_path: Path) -> None:
    bundle = bundles.stored()[0]
    folder = bundles.get(bundle)
    assert folder is not None
    assert (bundle.version, bundle.sha256) == (9, record_of("clinic", 9, files=folder_files(folder)).sha256)
    assert (folder / "model.onnx").read_text() == "model 9"
    assert bundles.get(StoredBundle(10, "0")) is None
    (tmp_path / "made_9" / "model.onnx").write_text("another")
    bundles.put(bundle, tmp_path / "made_9")
    assert (folder / "model.onnx").read_text() == "another"
    assert FolderStore(bundles.folder.parent).solutions() == ["clinic"]
    assert FolderStore(tmp_path / "none").solutions() == []


def test_what_an_alias_names_moves_in_one_step_with_its_record(bundles: FolderBundles) -> None:
    assert bundles.active("champion") == bundles.folder / "3"
    activate(bundles, 4, "champion")
    activate(bundles, 5, "champion-north")
    assert (bundles.active("champion"), bundles.aliases()) == (bundles.folder / "4", ["champion", "champion-north"])
    assert (bundles.folder / "4.json").is_file()
    bundles.deactivate("champion-north")
    assert bundles.active("champion-north") is None
    bundles.write_options(Serving(canary=0.5))
    assert bundles.read_options() == Serving(canary=0.5)


def test_only_what_nobody_needs_is_removed(bundles: FolderBundles) -> None:
    assert sorted(prune(bundles, needed={1}, keep=5)) == [2, 4]
    assert versions(bundles) == [9, 8, 7, 6, 5, 3, 1]
    assert prune(bundles, needed={1}, keep=5) == []
    activate(bundles, 9, "champion")
    assert prune(bundles, needed=(), keep=1) == [8, 7, 6, 5, 3, 1]
    assert not (bundles.folder / "3.json").exists()
    assert sorted(path.name for path in bundles.folder.iterdir()) == [".lock", "9", "9.json", "champion"]


def test_nothing_is_removed_while_somebody_uses_the_bundles(bundles: FolderBundles) -> None:
    with bundles.using(), bundles.using():
        assert prune(bundles, needed=(), keep=0) == []
        activate(bundles, 1, "champion")
    assert prune(bundles, needed=(), keep=0) == [9, 8, 7, 6, 5, 4, 3, 2]
    assert bundles.active("champion") == bundles.folder / "1"


def test_the_setting_names_the_store(tmp_path: Path) -> None:
    assert isinstance(open_bundle_store(Settings(home=tmp_path)), FolderStore)
    with pytest.raises(ValueError, match="MLOPS_BUNDLE_STORE: Unknown bundle store 'foldr': did you mean folder"):
        open_bundle_store(Settings(home=tmp_path, bundle_store="foldr"))
