"""Branches of an environment whose files are in a real object store: they read there, and write into their own folder alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from bundles import record_of
from object_storage import ObjectStore
from running_stack import Platform, new_home, project_with_branches

from mlops_assets.clients.bundle_record import ACCEPTANCE_TAG, folder_files
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.project import Project
from mlops_assets.core.settings import MLFLOW_DATABASE, Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.local import control, lake_catalog, postgres
from mlops_assets.operations.branches.environments import check_files, make_branch, remove_branch
from mlops_assets.operations.review.scratch_lake import scratch_lake
from mlops_assets.serving.bundle_store import StoredBundle, open_bundle_store

SOLUTION = "flights"


@pytest.fixture(autouse=True)
def environment(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def project() -> Iterator[Project]:
    """The project, with its branches in a folder of this test."""
    with project_with_branches() as project:
        yield project


def fill(settings: Settings, store: ObjectStore, made: Path) -> None:
    """A table, and a version that predicts."""
    postgres.create_databases(settings)
    lake_catalog.ensure_catalog(settings)
    with Lake.from_settings(settings).connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA raw; CREATE TABLE raw.flights AS SELECT range AS id FROM range(1000)")
    registry = mlflow.MlflowClient(settings.sqlalchemy_url(MLFLOW_DATABASE))
    experiment = registry.create_experiment(SOLUTION, artifact_location="mlflow-artifacts:/1")
    run = registry.create_run(experiment).info
    store.put(f"team/mlflow/1/{run.run_id}/artifacts/model_card.md", b"a card")
    registry.create_registered_model(SOLUTION)
    registry.create_model_version(SOLUTION, source=run.artifact_uri, run_id=run.run_id)
    made.mkdir()
    (made / "model.onnx").write_text("model 1")
    record = record_of(SOLUTION, 1, files=folder_files(made), engine="process", engine_reason="a test")
    bundles = open_bundle_store(settings).of(SOLUTION)
    bundles.put(StoredBundle(1, record.sha256), made)
    bundles.activate("champion", record, record.sign(Signer(settings.signing_key_file), "accepted")[ACCEPTANCE_TAG])


@pytest.mark.long
def test_a_branch_has_what_is_there_and_writes_nothing_there(store: ObjectStore, project: Project, tmp_path: Path) -> None:
    with new_home() as home, control.storage(home := replace(home, storage="s3://parcels/team", bundle_store="object_storage")):
        fill(home, store, tmp_path / "made")
        home.dagster_home.mkdir(exist_ok=True)
        before = {name: store.read(name) for name in store.names("")}
        here = sorted(home.serving_directory.rglob("*"))
        rows = Platform(home).fingerprints()
        review = project.state_directory.with_name("review")
        with scratch_lake(home, review) as scratch, scratch.lake.connect(read_only=False) as connection:
            connection.execute("CREATE TABLE raw.twice AS SELECT * FROM raw.flights UNION ALL FROM raw.flights")
            assert connection.execute("SELECT count(*) FROM raw.twice").fetchall() == [(2000,)]
        branch = make_branch(project, home, "objects", lambda text: None)
        with control.storage(branch.settings):
            assert Platform(branch.settings).fingerprints() == rows
            with Lake.from_settings(branch.settings).connect(read_only=False) as connection:
                connection.execute("CREATE TABLE raw.more AS SELECT * FROM raw.flights; DROP TABLE raw.flights")
            check_files(branch)
        bundles = open_bundle_store(branch.settings).of(SOLUTION)
        assert ((bundles.active("champion") or tmp_path) / "model.onnx").read_text() == "model 1"
        [card] = branch.settings.mlflow_artifact_directory.rglob("model_card.md")
        assert card.read_text() == "a card"
        assert {name: store.read(name) for name in store.names("")} == before
        assert sorted(home.serving_directory.rglob("*")) == here
        assert Platform(home).fingerprints() == rows
        assert remove_branch(project, "objects") is not None
        assert not project.branches_directory.exists()
        assert sorted(store.names("")) == sorted(before)
