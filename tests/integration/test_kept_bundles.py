"""Bundles that a rejection or a deployment removes, with a real MLflow registry and the report of a running process."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil
import pytest
from registry_database import new_registry_url

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.serving.active import CHAMPION_LINK, activate
from mlops_assets.serving.bundle_store import StoredBundle, open_bundle_store
from mlops_assets.serving.reports import ProcessReport, ServedModel, process_start
from mlops_assets.training.kept_bundles import prune_bundles

ALIASES = {"champion": 2, "previous": 1, "challenger-north": 4, "candidate-2020-03-01": 5}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ModelRegistry]:
    """Nine versions with `ALIASES`."""
    with pytest.MonkeyPatch.context() as patched:
        # The artifacts of a database without a server lie in the current folder.
        patched.chdir(tmp_path)
        registry = ModelRegistry(new_registry_url(tmp_path), "", Signer(tmp_path / "signing_key"))
        registry.client.create_registered_model("clinic")
        run_id = registry.start_run("clinic", name="run", tags={})
        for _ in range(9):
            registry.client.create_model_version("clinic", f"runs:/{run_id}", run_id=run_id)
        for alias, version in ALIASES.items():
            registry.set_alias("clinic", alias, version)
        yield registry


def report(settings: Settings, version: int) -> None:
    """What a process of the online server writes that still serves `version`."""
    settings.server_reports_directory.mkdir(parents=True)
    model = ServedModel(version=version, model_sha256="", since=None, segments={}, problems=())
    started = process_start(psutil.Process())
    written = ProcessReport(
        channel="online", pid=os.getpid(), started=started, written_at=datetime.now(UTC), models={"clinic": model}
    )
    (settings.server_reports_directory / "online.json").write_bytes(msgspec.json.encode(written))


def test_what_predicts_may_predict_at_once_or_is_new_stays(registry: ModelRegistry, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", kept_bundles=2)
    bundles, made = open_bundle_store(settings).of("clinic"), tmp_path / "made"
    made.mkdir()
    (made / "model.onnx").touch()
    for version in range(1, 10):
        bundles.put(StoredBundle(version, ""), made)
    report(settings, 3)
    activate(settings.serving_directory / "clinic" / "6", CHAMPION_LINK)
    assert prune_bundles(registry, settings, "clinic") == [7, 5]
    assert [bundle.version for bundle in bundles.stored()] == [9, 8, 6, 4, 3, 2, 1]
    assert prune_bundles(registry, settings, "clinic") == []
