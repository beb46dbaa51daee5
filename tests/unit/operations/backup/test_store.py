"""The folder of backups: files once each, points that are complete or not there, damage that is named."""

from pathlib import Path

import pytest
from backup_points import objects, point

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.operations.backup.creation import create_backup
from mlops_assets.operations.backup.point import FORMAT, StoredFile
from mlops_assets.operations.backup.store import BackupStore
from mlops_assets.operations.backup.verification import verify_backup


@pytest.fixture
def store(tmp_path: Path) -> BackupStore:
    return BackupStore(tmp_path / "backups")


def test_equal_contents_are_stored_once_and_come_back_with_their_times(store: BackupStore, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("the same")
    with store.locked() as scratch:
        first, size = store.add(tmp_path / "a", None, scratch)
        second, more = store.add(tmp_path / "b", None, scratch)
        store.commit(point("1", {"state/a": first, "state/b": second}), scratch)
    assert (size, more, len(objects(store))) == (8, 0, 1)
    store.restore(store.read(None).files["state/b"], tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").read_text() == "the same"
    assert (tmp_path / "deep" / "b").stat().st_mtime_ns == (tmp_path / "b").stat().st_mtime_ns


def test_a_file_that_did_not_change_is_not_read_again(store: BackupStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("long")
    with store.locked() as scratch:
        known, _ = store.add(source, None, scratch)
        source.chmod(0)
        assert store.add(source, known, scratch) == (known, 0)
        source.chmod(0o600)
        source.write_text("longer")
        assert store.add(source, known, scratch)[1] == 6


def test_nobody_else_can_read_a_backup(store: BackupStore, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    (tmp_path / "key").chmod(0o644)
    store.folder.mkdir(mode=0o755)
    with store.locked() as scratch:
        stored, _ = store.add(tmp_path / "key", None, scratch)
        store.commit(point("1", {"state/key": stored}), scratch)
    store.restore(stored, tmp_path / "restored")
    paths = [store.folder, tmp_path / "restored", *(path for path in store.folder.rglob("*") if path.name != "lock")]
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_pruning_leaves_what_the_kept_points_need(store: BackupStore, tmp_path: Path) -> None:
    with store.locked() as scratch:
        for number in range(3):
            (tmp_path / "new").write_text(f"new {number}")
            (tmp_path / "old").write_text("old")
            files = {f"state/{name}": store.add(tmp_path / name, None, scratch)[0] for name in ("new", "old")}
            store.commit(point(str(number), files), scratch)
        assert store.prune(2) == 1
    assert store.names() == ["1", "2"]
    assert len(objects(store)) == 3
    assert all(store.is_intact(file) for name in store.names() for file in store.read(name).files.values())
    assert store.prune(5) == 0


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_file_is_named_and_not_restored_silently(store: BackupStore, tmp_path: Path, damage: str) -> None:
    (tmp_path / "model.onnx").write_text("model")
    with store.locked() as scratch:
        stored, _ = store.add(tmp_path / "model.onnx", None, scratch)
    [path] = objects(store)
    path.write_text("other") if damage == "changed" else path.unlink()
    assert not store.is_intact(stored)
    with pytest.raises(StackError, match=rf"{path}, which holds model.onnx"):
        store.restore(stored, tmp_path / "restored" / "model.onnx")


def test_a_changed_description_is_refused(store: BackupStore) -> None:
    with store.locked() as scratch:
        store.commit(point("1", {}), scratch)
    path = store.folder / "points" / "1.json"
    path.write_text(path.read_text().replace("/state", "/other"))
    with pytest.raises(StackError, match="damaged"):
        store.read("1")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(StackError, match="damaged"):
        store.read("1")


@pytest.mark.parametrize("newer", [{"format": FORMAT + 1}, {"versions": {"mlops-assets": "99.1"}}])
def test_a_backup_of_a_newer_release_is_refused_with_the_release(store: BackupStore, newer: dict[str, object]) -> None:
    with store.locked() as scratch:
        store.commit(point("1", {}, **newer), scratch)
    with pytest.raises(StackError, match="newer than this one"):
        store.read(None)


def test_a_missing_backup_is_said_with_those_there_are(store: BackupStore) -> None:
    with pytest.raises(StackError, match="There is no backup in"):
        store.read(None)
    with store.locked() as scratch:
        store.commit(point("1", {}), scratch)
    with pytest.raises(StackError, match="Choose one of: 1"):
        store.read("2")


def test_one_backup_at_a_time_and_a_killed_one_leaves_nothing(store: BackupStore) -> None:
    (store.folder / ".scratch.killed").mkdir(parents=True)
    with store.locked(), pytest.raises(StackError, match="Another backup"), store.locked():
        pass
    assert sorted(path.name for path in store.folder.iterdir()) == ["lock", "objects", "points"]


@pytest.mark.parametrize("name", ["state/../../secret", "/etc/secret", "state/.."])
def test_a_point_that_leads_out_of_the_folder_is_refused(store: BackupStore, name: str) -> None:
    file = StoredFile(sha256="0" * 64, size=1, modified=0)
    for changes in ({"files": {name: file}}, {"files": {}, "links": {name: "x"}}):
        with store.locked() as scratch:
            store.commit(point("1", **changes), scratch)  # type: ignore[arg-type]
        with pytest.raises(StackError, match="is damaged"):
            store.read(None)


def test_a_backup_and_a_comparison_make_no_installation(store: BackupStore, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "mistyped")
    with pytest.raises(StackError, match=r"There is no installation in .*mistyped"):
        create_backup(settings, store.folder, keep=1, report=print)
    with pytest.raises(StackError, match=r"There is no installation in .*mistyped"):
        verify_backup(settings, store.folder, None, print)
    assert not settings.home.exists()
