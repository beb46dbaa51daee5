"""Retention of refused candidates with a real MLflow server on a real Postgres: their runs and files go, what anything names stays."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import optuna
import psycopg2
import pytest
from materialized import materialize_in_run
from mlflow.exceptions import MlflowException
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline
from waiting import wait_for

from mlops_assets.clients.champion import RegistryUnreachableError, registered_aliases
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import (
    COMPLETE,
    COMPLETE_TAG,
    GATES_FAILED,
    GATES_PASSED,
    GATES_TAG,
    RECALIBRATES_TAG,
    TRAINING_DATE_TAG,
    WITHDRAWN,
    RegisteredModel,
)
from mlops_assets.clients.search_storage import search_storage
from mlops_assets.core.settings import MLFLOW_DATABASE, SEARCH_DATABASE, Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.maintenance.model_maintenance import build_model_maintenance
from mlops_assets.maintenance.refused_versions import ModelMaintenance, ModelUpkeep
from mlops_assets.training.training_runs import MAKER_TAG, SOLUTION_TAG

pytestmark = pytest.mark.long

COMPLETE_AND = {COMPLETE_TAG: COMPLETE}
REFUSED = {**COMPLETE_AND, GATES_TAG: GATES_FAILED}
ACCEPTED = {**COMPLETE_AND, GATES_TAG: GATES_PASSED}

LONG_AGO = timedelta(days=200)


@pytest.fixture(scope="module")
def settings(create_database: Callable[[str], str]) -> Iterator[Settings]:
    """A state folder whose MLflow server runs, on the session's Postgres."""
    # Not pytest's own folder: its path is longer than a Unix socket may have.
    home = Path(tempfile.mkdtemp(prefix="models.", dir="/tmp"))
    (home / "postgres").symlink_to(create_database(MLFLOW_DATABASE).partition("host=")[2])
    create_database(SEARCH_DATABASE)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    settings = Settings(home=home, mlflow_port=port)
    environment = {**os.environ, "MLOPS_HOME": str(home), "MLOPS_MLFLOW_PORT": str(port)}
    server = subprocess.Popen([sys.executable, "-m", "mlops_assets.local.mlflow_server"], env=environment)
    try:
        wait_for(lambda: answers(settings), every=0.5)
        yield settings
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(home)


def answers(settings: Settings) -> bool:
    try:
        registered_aliases(settings)
    except RegistryUnreachableError:
        return False
    return True


@pytest.fixture(autouse=True)
def _no_second_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def lake(make_lake: Callable[[], Lake]) -> Lake:
    lake = make_lake()
    lake.connect(read_only=False).close()
    return lake


class Solution:
    """A solution in the registry, whose versions are made here."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.registry, self.name = ModelRegistry.from_settings(settings), name
        self.registry.client.create_registered_model(name)

    def run(self, *, tags: Mapping[str, str] | None = None) -> str:
        made = {MAKER_TAG: "gone", SOLUTION_TAG: self.name} if tags is None else tags
        run_id = self.registry.start_run(self.name, name="run", tags=made)
        self.registry.log_texts(run_id, {"card.md": "A card"})
        return run_id

    def version(self, tags: Mapping[str, str], *, run_id: str | None = None) -> RegisteredModel:
        run_id = run_id or self.run()
        date = f"2020-01-{len(self.registry.every_version(self.name)) + 1:02}"
        made = self.registry.client.create_model_version(
            self.name, f"runs:/{run_id}/bundle", run_id=run_id, tags={TRAINING_DATE_TAG: date, **tags}
        )
        return self.registry.get(self.name, int(made.version))

    def has_run(self, run_id: str) -> bool:
        try:
            return bool(self.registry.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException:
            return False


def upkeep(
    settings: Settings, lake: Lake, instance: dg.DagsterInstance, *, after: timedelta = LONG_AGO, dry_run: bool = False
) -> ModelMaintenance:
    registry = ModelRegistry.from_settings(settings)
    with lake.connect(read_only=True) as connection:
        work = ModelUpkeep(registry, instance, connection, settings, datetime.now(UTC) + after)
        return work.run(dry_run=dry_run, report=lambda _: None)


def execute(settings: Settings, *statements: str) -> None:
    connection = psycopg2.connect(settings.postgres_connection_string(MLFLOW_DATABASE))
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def files(settings: Settings) -> set[str]:
    return {path.name for path in settings.mlflow_artifact_directory.glob("*/*") if path.is_dir() and any(path.rglob("*.*"))}


def test_what_nothing_names_goes_with_its_files_and_all_else_stays(
    settings: Settings, lake: Lake, instance: dg.DagsterInstance
) -> None:
    clinic = Solution(settings, "clinic")
    registry, client = clinic.registry, clinic.registry.client
    champion = clinic.version(ACCEPTED)
    refused_run = clinic.run()
    refused = registry.register(
        "clinic", refused_run, Pipeline([("model", DummyClassifier().fit([[0], [1]], [0, 1]))]), {TRAINING_DATE_TAG: "2020-01-02"}
    )
    registry.tag("clinic", refused.version, REFUSED)
    experiment = client.get_run(refused_run).info.experiment_id
    trial = client.create_run(experiment, tags={"mlflow.parentRunId": refused_run}).info.run_id
    incomplete = clinic.version({})
    before, predicting, base, deployed = (clinic.version(REFUSED) for _ in range(4))
    recalibrated = clinic.version({**ACCEPTED, RECALIBRATES_TAG: str(base.version)})
    abandoned, of_person = clinic.run(), clinic.run(tags={})
    going = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED).run_id
    training = clinic.run(tags={MAKER_TAG: going, SOLUTION_TAG: "clinic"})
    registry.set_alias("clinic", "champion", champion.version)
    registry.set_alias("clinic", "previous", before.version)
    registry.set_alias("clinic", "candidate-2020-01-02", refused.version)
    deployment = dg.AssetKey(["clinic", "deployment"])
    materialize_in_run(instance, deployment, deployed.tags[TRAINING_DATE_TAG], {"model_version": deployed.version})
    with lake.connect(read_only=False) as connection:
        query = f"SELECT 'p' AS prediction_id, {predicting.version} AS model_version"
        lake.append(connection, table="clinic.predictions", query=query, identifier="prediction_id", author="test")
    kept = [model.run_id for model in (champion, before, predicting, base, deployed, recalibrated)] + [of_person, training]
    young = upkeep(settings, lake, instance, after=timedelta(days=179))
    assert (young.expired, young.abandoned, young.removed) == ([], [], [])

    planned = upkeep(settings, lake, instance, dry_run=True)
    assert clinic.has_run(refused_run)
    done = upkeep(settings, lake, instance)
    assert planned == done
    assert sorted(done.expired) == [f"clinic {refused.version}", f"clinic {incomplete.version}"]
    assert done.abandoned == [abandoned]
    assert all(clinic.has_run(run_id) for run_id in kept)
    assert not any(clinic.has_run(run_id) for run_id in (refused_run, trial, incomplete.run_id, abandoned))
    # The version stays with what a decision reads of it, and nobody finds it for a training or an evaluation.
    stays = registry.get("clinic", refused.version)
    assert (stays.tags[GATES_TAG], stays.tags[COMPLETE_TAG], stays.run_id) == (GATES_FAILED, WITHDRAWN, refused_run)
    assert registry.by_alias("clinic", "candidate-2020-01-02") is None
    assert refused.version not in {model.version for model in registry.versions("clinic")}

    # Until then they can be restored.
    assert {refused_run, abandoned, "models"} <= files(settings)
    again = upkeep(settings, lake, instance, after=LONG_AGO + timedelta(days=29))
    assert (again.expired, again.abandoned, again.removed) == ([], [], [])
    execute(
        settings,
        "UPDATE runs SET deleted_time = deleted_time - 31 * 86400000::bigint WHERE lifecycle_stage = 'deleted'",
        "UPDATE logged_models SET last_updated_timestamp_ms = last_updated_timestamp_ms - 31 * 86400000::bigint",
    )
    removed = upkeep(settings, lake, instance, after=LONG_AGO + timedelta(days=31))
    assert removed.removed == sorted([refused_run, trial, incomplete.run_id, abandoned])
    assert files(settings) == set(kept)
    with pytest.raises(MlflowException, match="not found"):
        client.get_run(refused_run)
    assert upkeep(settings, lake, instance, after=LONG_AGO + timedelta(days=31)).removed == []


@dg.job
def nothing() -> None:
    """A job without steps."""


def test_what_fails_in_the_middle_goes_on_the_next_time(settings: Settings, lake: Lake, instance: dg.DagsterInstance) -> None:
    harbour = Solution(settings, "harbour")
    refused = harbour.version(REFUSED)
    client = harbour.registry.client
    experiment = client.get_run(refused.run_id).info.experiment_id
    trial = client.create_run(experiment, tags={"mlflow.parentRunId": refused.run_id}).info.run_id
    execute(
        settings,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NEW.run_uuid = '{refused.run_id}' THEN RAISE 'the disk is full'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    try:
        with pytest.raises(MlflowException, match="the disk is full"):
            upkeep(settings, lake, instance)
    finally:
        execute(settings, "DROP FUNCTION refuse CASCADE")
    assert harbour.has_run(refused.run_id)
    assert not harbour.has_run(trial)
    assert harbour.registry.versions("harbour") == []
    assert upkeep(settings, lake, instance).expired == [f"harbour {refused.version}"]
    assert not harbour.has_run(refused.run_id)


def test_trials_of_old_searches_go(settings: Settings, lake: Lake, instance: dg.DagsterInstance) -> None:
    with search_storage(settings, "old") as storage:
        optuna.create_study(storage=storage, study_name="old").optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert upkeep(settings, lake, instance, after=timedelta(days=179)).studies == []
    assert upkeep(settings, lake, instance, dry_run=True).studies == ["old"]
    assert upkeep(settings, lake, instance).studies == ["old"]
    with search_storage(settings, "old") as storage:
        assert storage.get_all_studies() == []


def test_the_asset_shows_what_went(settings: Settings, lake: Lake) -> None:
    resources = {"settings": settings, "lake": lake, "registry": ModelRegistry.from_settings(settings)}
    result = dg.materialize([build_model_maintenance()], resources=resources)
    [made] = result.asset_materializations_for_node("platform__model_maintenance")
    assert made.metadata["versions_expired"].value == []
