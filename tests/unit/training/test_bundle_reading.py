"""Reading a version's bundle on this machine: the one that was registered, or none."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from bundles import Fitted, fit_flights, record_of

from mlops_assets.clients.bundle_record import RECORD_TAG, EvidenceError, folder_files
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core.settings import Settings
from mlops_assets.serving.bundle import BundleError
from mlops_assets.training.bundle_reading import (
    bundle_folder,
    keep_bundle,
    read_bundle,
    read_contract,
    read_gated_bundle,
    require_passed_gates,
)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_flights("regression", version=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    # Nothing answers at the registry: what is not here cannot be read.
    return Settings(home=tmp_path, mlflow_port=1)


@pytest.fixture
def registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry.from_settings(settings)


@pytest.fixture
def model(fitted: Fitted, settings: Settings, registry: ModelRegistry, tmp_path: Path) -> RegisteredModel:
    """A version that was registered here, with its bundle kept on this machine."""
    folder = fitted.write(tmp_path / "written")
    files = folder_files(folder)
    record = record_of("flights", 1, files=files)
    evidence = {**record.sign(registry.signer, "registered"), RECORD_TAG: record.text}
    model = RegisteredModel("flights", 1, record.run_id, {**record.training.tags, **evidence})
    keep_bundle(settings, model, folder)
    return model


def test_what_was_kept_is_read_without_the_registry(model: RegisteredModel, registry: ModelRegistry, settings: Settings) -> None:
    assert read_bundle(registry, settings, model).contract == read_contract(registry, settings, model)
    assert bundle_folder(registry, settings, registry.registered_record(model)).is_relative_to(settings.serving_directory)


@pytest.mark.parametrize("name", ["contract.json", "model.onnx", "sample.json"])
def test_a_file_that_changed_is_refused_with_the_remedy(
    name: str, model: RegisteredModel, registry: ModelRegistry, settings: Settings
) -> None:
    folder = bundle_folder(registry, settings, registry.registered_record(model))
    path = folder / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=f"Remove {folder} to have the bundle fetched"):
        read_bundle(registry, settings, model)


def test_a_file_that_was_added_is_refused(model: RegisteredModel, registry: ModelRegistry, settings: Settings) -> None:
    (bundle_folder(registry, settings, registry.registered_record(model)) / "extra.py").write_text("x")
    with pytest.raises(BundleError):
        read_bundle(registry, settings, model)


def test_the_gates_read_the_fit_that_has_not_seen_the_hold_out(
    settings: Settings, registry: ModelRegistry, tmp_path: Path
) -> None:
    served, gated = fit_flights("regression", version=2), fit_flights("regression", version=2, seed=1)
    folder = served.write(tmp_path / "written")
    gated.write(folder / "gated")
    record = record_of("flights", 2, files=folder_files(folder))
    assert record.is_refitted
    evidence = {**record.sign(registry.signer, "registered"), RECORD_TAG: record.text}
    model = RegisteredModel("flights", 2, record.run_id, {**record.training.tags, **evidence})
    keep_bundle(settings, model, folder)
    read = read_bundle(registry, settings, model), read_gated_bundle(registry, settings, model)
    assert [bundle.contract.model_sha256 for bundle in read] == [fit.contract.model_sha256 for fit in (served, gated)]
    kept = bundle_folder(registry, settings, record) / "gated" / "model.onnx"
    kept.write_bytes(kept.read_bytes() + b" ")
    for reader in (read_bundle, read_gated_bundle):
        with pytest.raises(BundleError, match="was changed after promotion"):
            reader(registry, settings, model)


def test_a_version_that_serves_what_was_gated_has_one_bundle(
    model: RegisteredModel, registry: ModelRegistry, settings: Settings
) -> None:
    assert not registry.registered_record(model).is_refitted
    assert read_gated_bundle(registry, settings, model).path == read_bundle(registry, settings, model).path


def test_a_version_that_was_not_registered_here_is_not_read(
    model: RegisteredModel, registry: ModelRegistry, settings: Settings
) -> None:
    for changed in (replace(model, tags={}), replace(model, run_id="another")):
        with pytest.raises(EvidenceError):
            read_bundle(registry, settings, changed)


def test_a_version_without_acceptance_leaves_the_champion(model: RegisteredModel, registry: ModelRegistry) -> None:
    with pytest.raises(EvidenceError, match=r"has not passed its gates .* The champion stays"):
        require_passed_gates(dg.DagsterInstance.ephemeral(), registry, model)
