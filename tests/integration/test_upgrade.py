"""Upgrades of the state that an earlier release left: it is refused, migrated after a backup, served from, and continued."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parcels
import psycopg2
import pytest
from running_stack import Platform, new_home
from waiting import wait_for

from mlops_assets.core.settings import DAGSTER_DATABASE, LAKE_DATABASE, MLFLOW_DATABASE, Settings
from mlops_assets.lake.tables import fingerprint
from mlops_assets.local import control, lake_catalog, postgres, version_check
from mlops_assets.local.environment import process_environment, scripts_directory
from mlops_assets.local.supervisor import Supervisor
from mlops_assets.local.version_check import StateVersionError
from mlops_assets.local.version_log import BEGAN, FIRST_RELEASE, PRODUCT, UPGRADED, WRITTEN, read_history, version_log
from mlops_assets.operations.backup.store import BackupStore

STATES = sorted((Path(__file__).parents[1] / "states").glob("*.tar.xz"))
NEXT_WEEK = "2024-03-25"
TABLES = ("raw.parcels", "features.depot_history", "parcel_delay.predictions")
# The newest change of MLflow's tables, undone, and the revision before it.
BEFORE_MLFLOW = """
DROP TABLE scheduler_leases, job_locks;
ALTER TABLE jobs DROP COLUMN executor_backend, DROP COLUMN lease_expires_at, DROP COLUMN status_message, DROP COLUMN progress,
    DROP COLUMN progress_updated_at, DROP COLUMN token_hash, DROP COLUMN scoped_permissions, DROP COLUMN next_attempt_at;
UPDATE alembic_version SET version_num = '75868b020152'
"""


@pytest.fixture(params=STATES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The project, the backup and the answers of a release, whose project is that of the process."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    with parcels.current_project_is(tmp_path / "shop"):
        yield tmp_path


@contextlib.contextmanager
def migrated(release: Path) -> Iterator[tuple[Platform, Settings]]:
    """The state of an earlier release, moved into another folder with other ports and migrated, with nothing running; an empty folder."""
    with new_home() as settings, new_home() as other:
        restored = Platform(settings).mlops("restore", str(release / "backup"))
        assert restored.returncode == 0, restored.stderr
        with control.storage(settings):
            make_older(settings)
            assert_says_what_it_would_migrate(Platform(settings))
        shutil.rmtree(other.home)
        settings.home.rename(other.home)
        settings.home.mkdir()
        platform = Platform(other)
        assert_is_refused(platform)
        upgrade(platform, release / "before")
        yield platform, settings


@pytest.mark.long
def test_a_moved_state_of_an_earlier_release_is_migrated(release: Path) -> None:
    with migrated(release) as (platform, _), control.storage(platform.settings):
        query = "SELECT count(*) FROM former.predictions UNION ALL SELECT count(*) FROM former.prediction_log"
        assert sorted(platform.rows(query)) == [(2,), (3,)]
        compared = platform.mlops("verify", str(release / "backup"))
        assert compared.returncode == 0, compared.stdout


@pytest.mark.long
def test_a_migrated_state_serves_and_goes_on_and_there_is_a_way_back(release: Path) -> None:
    answers = json.loads((release / "answers.json").read_text())
    with migrated(release) as (platform, empty):
        started = platform.mlops("up")
        assert started.returncode == 0, started.stderr
        assert_answers(platform, answers)
        assert_goes_on(platform)
        control.down(platform.settings)
        assert_way_back(release / "before", Platform(empty))


def make_older(settings: Settings) -> None:
    """Make every part of the state as an earlier release would have left it."""
    execute(settings, DAGSTER_DATABASE, "UPDATE alembic_version SET version_num = 'f495c27d5019'")
    execute(settings, MLFLOW_DATABASE, BEFORE_MLFLOW)
    with Platform(settings).lake.connect(read_only=False) as connection:
        connection.execute(
            "CREATE SCHEMA former; CREATE TABLE former.predictions AS SELECT 'former:' || i AS prediction_id, i AS id, "
            "CASE WHEN i < 2 THEN 'online' ELSE 'batch' END AS channel FROM range(5) r(i)"
        )
    execute(settings, LAKE_DATABASE, "UPDATE ducklake_metadata SET value = '0.4' WHERE key = 'version'")


def execute(settings: Settings, database: str, statement: str) -> None:
    connection = psycopg2.connect(settings.postgres_connection_string(database))
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def assert_says_what_it_would_migrate(platform: Platform) -> None:
    """And does nothing, without a backup or without being asked to."""
    looked = json.loads(platform.mlops("upgrade", "--dry-run", "--json").stdout)
    assert looked["pending"] == ["Dagster", "MLflow", "lake", "predictions_to_prediction_log", "evaluation_to_segment_evaluation"]
    without = platform.mlops("upgrade")
    assert (without.returncode, "no way back from an upgrade without a backup" in without.stderr) == (1, True)
    assert read_history(platform.settings) == []
    assert json.loads(platform.mlops("upgrade", "--dry-run", "--json").stdout) == looked


def assert_is_refused(platform: Platform) -> None:
    """The start of a state that is older, which leaves nothing running."""
    refused = platform.mlops("up")
    assert refused.returncode == 1
    for part in ("Dagster", "MLflow", "lake", "predictions_to_prediction_log"):
        assert f"{part} (" in refused.stderr
    assert "mlops upgrade --backup FOLDER" in refused.stderr
    assert not Supervisor(platform.settings).is_running()


def upgrade(platform: Platform, backup: Path) -> None:
    """An upgrade that is killed after its backup, and goes on when it is called again, without another one."""
    settings = platform.settings
    command = [str(scripts_directory() / "mlops"), "upgrade", "--backup", str(backup)]
    process = subprocess.Popen(command, env=process_environment(settings), start_new_session=True, stdout=subprocess.DEVNULL)
    wait_for(lambda: bool(read_history(settings)) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    refused = platform.mlops("up")
    assert (refused.returncode, "has not ended" in refused.stderr, "mlops upgrade" in refused.stderr) == (1, True, True)
    done = platform.mlops("upgrade", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert f"mlops restore {backup}" in answer["way_back"]
    history = read_history(settings)
    assert {entry.event for entry in history[:-1]} == {BEGAN}
    assert (history[-1].event, history[-1].backup) == (UPGRADED, history[0].backup)
    assert len(list((backup / "points").iterdir())) == 1


def assert_answers(platform: Platform, answers: dict[str, Any]) -> None:
    """What the release answered, but for addresses, which have other ports."""
    solution = answers["solution"]
    online = json.loads(platform.mlops("predict", solution, "--json", json.dumps(answers["request"])).stdout)
    for name in ("model_version", "predicted_label", "score"):
        assert online[name] == answers["online"][name]
    history = json.loads(platform.mlops("history", solution, "--json").stdout)
    assert as_then(without_addresses(history), answers["history"]) == without_addresses(answers["history"])
    for prediction, expected in answers["traces"].items():
        traced = platform.mlops("trace", prediction, "--json")
        assert traced.returncode == 0, traced.stderr
        assert as_then(without_addresses(json.loads(traced.stdout)), expected) == without_addresses(expected)
    decided = platform.mlops("sql", f"SELECT * FROM {solution}.retraining_decision ORDER BY ALL", "--json")
    assert json.loads(decided.stdout) == answers["decisions"]


def as_then(value: Any, former: Any) -> Any:
    """The answer without what an earlier release had no name for, and which is empty of its time."""
    if isinstance(value, dict) and isinstance(former, dict):
        return {name: as_then(each, former.get(name)) for name, each in value.items() if name in former or each is not None}
    if isinstance(value, list) and isinstance(former, list) and len(value) == len(former):
        return [as_then(each, earlier) for each, earlier in zip(value, former, strict=True)]
    return value


def without_addresses(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_addresses(each) for name, each in value.items() if not str(each).startswith("http://")}
    return [without_addresses(each) for each in value] if isinstance(value, list) else value


def assert_goes_on(platform: Platform) -> None:
    """One more week is loaded and predicted, and what was there before is as it was."""
    before = earlier_rows(platform)
    keys = ("raw/parcels", "features/depot_history", "parcel_delay/spine", "parcel_delay/predictions")
    state = platform.materialize(keys, NEXT_WEEK, NEXT_WEEK)
    assert state.status == "SUCCESS", state
    assert earlier_rows(platform) == before
    assert platform.value(f"SELECT count(*) FROM parcel_delay.predictions WHERE sent_date >= DATE '{NEXT_WEEK}'") == 210


def earlier_rows(platform: Platform) -> dict[str, str]:
    with platform.lake.connect(read_only=True) as connection:
        column = {"features.depot_history": "event_date"}
        earlier = {table: f"(FROM lake.{table} WHERE {column.get(table, 'sent_date')} < DATE '{NEXT_WEEK}')" for table in TABLES}
        return {table: fingerprint(connection, relation) for table, relation in earlier.items()}


def assert_way_back(folder: Path, platform: Platform) -> None:
    """The backup of before the upgrade becomes the state of the earlier release again."""
    assert BackupStore(folder).read(None).versions == {PRODUCT: FIRST_RELEASE}
    restored = platform.mlops("restore", str(folder))
    assert restored.returncode == 0, restored.stderr
    looked = json.loads(platform.mlops("upgrade", "--dry-run", "--json").stdout)
    assert looked["pending"][:3] == ["Dagster", "MLflow", "lake"]
    assert read_history(platform.settings) == []


@pytest.mark.long
def test_a_newer_state_is_refused_and_a_plain_update_of_packages_is_not() -> None:
    with new_home() as settings:
        with control.storage(settings):
            postgres.create_databases(settings)
            lake_catalog.ensure_catalog(settings)
            version_check.check_state(settings)
            [entry] = read_history(settings)
            assert entry.event == WRITTEN
            with version_log(settings).open("a") as file:
                file.write(
                    json.dumps({"at": "2026-01-01T00:00:00Z", "event": WRITTEN, "form": 2, "versions": {"mlops-assets": "0.1.0"}})
                )
                file.write('\n{"at": "2026-')
            version_check.check_state(settings)
            assert [entry.event for entry in read_history(settings)] == [WRITTEN] * 3
            execute(settings, LAKE_DATABASE, "UPDATE ducklake_metadata SET value = '99.0' WHERE key = 'version'")
            version_log(settings).unlink()
            with pytest.raises(StateVersionError, match=r"is newer than this release: lake is 99.0"):
                version_check.check_state(settings)
        (settings.postgres_directory / "PG_VERSION").write_text("11\n")
        old_cluster = Platform(settings).mlops("up")
        assert (old_cluster.returncode, "is of version 11, and this release has" in old_cluster.stderr) == (1, True)
        version_log(settings).write_text(
            json.dumps({"at": "2026-01-01T00:00:00Z", "event": WRITTEN, "form": 99, "versions": {"mlops-assets": "9.0.0"}}) + "\n"
        )
        newer = Platform(settings).mlops("up")
        assert (newer.returncode, "was written by mlops-assets 9.0.0, which is newer" in newer.stderr) == (1, True)
        assert "uv pip install 'mlops-assets==9.0.0'" in newer.stderr
