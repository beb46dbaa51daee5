"""Backups that are encrypted by age: nothing of a content without an identity, and no damage that passes for a content."""

import os
from pathlib import Path

import pyrage
import pytest
from backup_points import objects, point

from mlops_assets.core.errors import StackError
from mlops_assets.operations.backup.encryption import Identity, Recipients
from mlops_assets.operations.backup.store import BackupStore

CANARY = b"canary-2fdc3a1f"


class Keys:
    """An identity in a file, and its recipient."""

    def __init__(self, path: Path):
        identity = pyrage.x25519.Identity.generate()
        self.recipient = str(identity.to_public())
        path.write_text(f"# created: today\n# public key: {self.recipient}\n{identity}\n")
        self.path = path

    @property
    def identity(self) -> Identity:
        return Identity(self.path)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "identity.txt")


@pytest.fixture
def others(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "others.txt")


@pytest.fixture
def store(tmp_path: Path, keys: Keys) -> BackupStore:
    return BackupStore(tmp_path / "backups", Recipients([keys.recipient]))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A content of several of age's chunks of 64 KiB."""
    path = tmp_path / "content"
    path.write_bytes(CANARY + os.urandom(300_000) + CANARY)
    return path


def test_every_recipient_reads_a_content_and_nobody_else(
    store: BackupStore, keys: Keys, others: Keys, source: Path, tmp_path: Path
) -> None:
    both = BackupStore(store.folder, Recipients([keys.recipient, others.recipient]))
    with both.locked() as scratch:
        stored, size = both.add(source, None, scratch)
    [written] = objects(both)
    assert (written.stat().st_size, written.read_bytes().count(CANARY)) == (size, 0)
    assert written.read_bytes().startswith(b"age-encryption.org/v1\n")
    for reader in (keys, others):
        both.restore(stored, tmp_path / "restored", reader.identity)
        assert (tmp_path / "restored").read_bytes() == source.read_bytes()
    with pytest.raises(StackError, match="does not open this backup") as refused:
        both.restore(stored, tmp_path / "nothing", Keys(tmp_path / "third.txt").identity)
    assert "recipients" in refused.value.remedy
    assert CANARY not in (tmp_path / "nothing").read_bytes()
    with pytest.raises(StackError, match="is encrypted"):
        both.restore(stored, tmp_path / "nothing")


@pytest.mark.parametrize("damage", ["changed", "cut", "cut between chunks", "of another content", "gone"])
def test_a_damaged_content_is_refused_and_seen_without_an_identity(
    store: BackupStore, keys: Keys, source: Path, tmp_path: Path, damage: str
) -> None:
    with store.locked() as scratch:
        stored, _ = store.add(source, None, scratch)
        [path] = objects(store)
        (tmp_path / "another").write_bytes(b"another")
        another, _ = store.add(tmp_path / "another", None, scratch)
    content = path.read_bytes()
    head = content.index(b"\n--- ") + 5 + 43 + 1
    chunk = 16 + (64 << 10) + 16
    assert another.encrypted is not None
    damaged = {
        "changed": content[:-20_000] + bytes([content[-20_000] ^ 1]) + content[-19_999:],
        "cut": content[:-1],
        "cut between chunks": content[: head + chunk],
        "of another content": (store.folder / "objects" / another.encrypted[:2] / another.encrypted).read_bytes(),
    }
    path.unlink() if damage == "gone" else path.write_bytes(damaged[damage])
    assert not store.is_intact(stored)
    with pytest.raises(StackError, match=f"{path}, which holds restored, is missing or was changed"):
        store.restore(stored, tmp_path / "restored", keys.identity)


def test_what_did_not_change_is_neither_read_nor_written_again(store: BackupStore, source: Path, keys: Keys) -> None:
    with store.locked() as scratch:
        stored, size = store.add(source, None, scratch)
        assert size > 300_000
        store.commit(point("1", {"state/content": stored}, recipients=store.recipients and store.recipients.names), scratch)
    again = BackupStore(store.folder, Recipients([keys.recipient]))
    newest = again.newest()
    assert newest is not None
    known = again.take_up(newest)
    with again.locked() as scratch:
        source.chmod(0)
        assert again.add(source, known["state/content"], scratch) == (stored, 0)
        # The same content at another time: encrypted it would be other bytes.
        source.chmod(0o600)
        os.utime(source, ns=(1, 1))
        moved, size = again.add(source, known["state/content"], scratch)
    assert (moved.encrypted, size, len(objects(again))) == (stored.encrypted, 0, 1)


def test_other_recipients_get_everything_and_none_is_refused(
    store: BackupStore, source: Path, keys: Keys, others: Keys, tmp_path: Path
) -> None:
    with store.locked() as scratch:
        first = point("1", {"state/content": store.add(source, None, scratch)[0]}, recipients=[keys.recipient])
        store.commit(first, scratch)
    changed = BackupStore(store.folder, Recipients([others.recipient]))
    assert changed.take_up(first) == {}
    with changed.locked() as scratch:
        stored, size = changed.add(source, None, scratch)
        changed.commit(point("2", {"state/content": stored}, recipients=[others.recipient]), scratch)
    assert size > 300_000
    changed.restore(stored, tmp_path / "restored", others.identity)
    assert changed.prune(1) == 1
    assert [path.name for path in objects(changed)] == [stored.encrypted]
    with pytest.raises(StackError, match="are encrypted, and this one would not be"):
        BackupStore(store.folder).take_up(changed.read(None))


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="'age1wrong' is no recipient of age"):
        Recipients(["age1wrong"])
    for text in ("", "# only a comment\n", "AGE-SECRET-KEY-1WRONG\n"):
        (tmp_path / "identity.txt").write_text(text)
        with pytest.raises(StackError, match="There is no identity of age in"):
            Identity(tmp_path / "identity.txt")
    with pytest.raises(StackError, match="No such file"):
        Identity(tmp_path / "missing.txt")


def test_a_full_disk_is_said(store: BackupStore, source: Path, tmp_path: Path) -> None:
    (tmp_path / "object").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        store.add(source, None, tmp_path)
