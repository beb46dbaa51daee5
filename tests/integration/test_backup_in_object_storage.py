"""Backup and restore of an installation whose files are in a real object store: the databases are copied, the lake's files are named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from object_storage import ObjectStore
from running_stack import Platform, new_home

from mlops_assets.core.settings import Settings
from mlops_assets.local import control, lake_catalog, postgres


@pytest.fixture(autouse=True)
def environment(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)


def there(settings: Settings, store: ObjectStore) -> Settings:
    return replace(settings, storage=f"s3://{store.bucket}/team", bundle_store="object_storage")


def fill(settings: Settings) -> dict[str, str]:
    """Make a table, and return the fingerprints of the lake."""
    postgres.create_databases(settings)
    lake_catalog.ensure_catalog(settings)
    platform = Platform(settings)
    with platform.lake.connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA raw; CREATE TABLE raw.flights AS SELECT range AS id FROM range(1000)")
    return platform.fingerprints()


@pytest.mark.long
def test_a_restore_has_the_rows_unless_a_file_was_removed(store: ObjectStore, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    with new_home() as home, control.storage(home := there(home, store)):
        before = fill(home)
        made = Platform(home).mlops("backup", str(folder), "--json")
        assert made.returncode == 0, made.stderr
        compared = Platform(home).mlops("verify", str(folder))
        assert compared.returncode == 0, compared.stdout
    assert not list((folder / "points").rglob("*.parquet"))
    point = json.loads(made.stdout)["point"]
    with new_home() as other:
        without = Platform(other).mlops("restore", str(folder))
        assert (without.returncode, "Set MLOPS_STORAGE=s3://parcels/team" in without.stderr) == (1, True)
        restored = Platform(there(other, store)).mlops("restore", str(folder))
        assert restored.returncode == 0, restored.stderr
        with control.storage(there(other, store)):
            assert Platform(there(other, store)).fingerprints() == before
    [file] = [name for name in store.names("team/lake/") if name.endswith(".parquet")]
    store.remove(file)
    with new_home() as third:
        refused = Platform(there(third, store)).mlops("restore", str(folder))
        assert (refused.returncode, f"Have the bucket give back its versions of {point}" in refused.stderr) == (1, True)
        assert list(third.home.iterdir()) == []
