"""The serving bundle of a version on this machine, verified against its signed record at every use.

`model` keeps the bundle that it wrote here, so that evaluation and deployment download nothing; a machine that lacks it fetches it from
the registry. `deployment` decides what may predict.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.clients.bundle_record import GATED_FOLDER, BundleRecord, EvidenceError, folder_files, tree_hash
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core.settings import Settings
from mlops_assets.serving.bundle_store import SolutionBundles, StoredBundle, open_bundle_store
from mlops_assets.training.acceptance import gates_problem

if TYPE_CHECKING:
    from mlops_assets.serving.bundle import Bundle
    from mlops_assets.serving.contract import Contract


def require_passed_gates(
    instance: dg.DagsterInstance, registry: ModelRegistry, model: RegisteredModel
) -> tuple[BundleRecord, str]:
    """The record of `model` and the signature of its acceptance. Raises EvidenceError unless its evaluation passed every gate.

    Blocking checks do not reach across runs, and the tags of the registry can be written by hand.
    """
    if problem := gates_problem(instance, registry.signer, model):
        raise EvidenceError(f"{problem} The champion stays.")
    return registry.accepted_record(model)


def read_bundle(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> "Bundle":
    """The bundle of `model` on this machine. Raises EvidenceError or BundleError when it is not the one that was registered."""
    from mlops_assets.serving.bundle import BundleError
    from mlops_assets.serving.bundle_loading import load_bundle

    record = registry.registered_record(model)
    with bundles_of(settings, model).using():
        folder = bundle_folder(registry, settings, record)
        try:
            return load_bundle(folder, record.files)
        except BundleError as error:
            raise BundleError(_with_remedy(error, folder)) from error


def read_gated_bundle(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> "Bundle":
    """The bundle of the fit of `model` that its gates evaluated, which never saw the hold-out. Raises as `read_bundle` does."""
    from mlops_assets.serving.bundle import BundleError
    from mlops_assets.serving.bundle_loading import load_bundle

    record = registry.registered_record(model)
    if not record.is_refitted:
        return read_bundle(registry, settings, model)
    prefix = f"{GATED_FOLDER}/"
    files = {name.removeprefix(prefix): sha256 for name, sha256 in record.files.items() if name.startswith(prefix)}
    with bundles_of(settings, model).using():
        folder = bundle_folder(registry, settings, record)
        try:
            return load_bundle(folder / GATED_FOLDER, files)
        except BundleError as error:
            raise BundleError(_with_remedy(error, folder)) from error


def read_contract(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> "Contract":
    """The contract of the bundle of `model`, without its model. Raises as `read_bundle` does."""
    from mlops_assets.serving.bundle import BundleError
    from mlops_assets.serving.bundle_loading import load_contract

    record = registry.registered_record(model)
    with bundles_of(settings, model).using():
        folder = bundle_folder(registry, settings, record)
        try:
            return load_contract(folder, record.files)
        except BundleError as error:
            raise BundleError(_with_remedy(error, folder)) from error


def fitted_version(registry: ModelRegistry, model: RegisteredModel) -> RegisteredModel:
    """The version whose model file `model` has: itself, unless it is recalibrated. Raises EvidenceError when its record was changed."""
    base = registry.registered_record(model).training.recalibrates
    return model if base is None else registry.get(model.solution, base)


def bundle_folder(registry: ModelRegistry, settings: Settings, record: BundleRecord) -> Path:
    """The folder of a version's serving bundle on this machine, fetched from the registry when the store lacks it.

    Nothing is verified here. Call it in a block that is `using` the bundles, which are pruned.
    """
    store, bundle = open_bundle_store(settings).of(record.solution), StoredBundle(record.version, record.sha256)
    if (folder := store.get(bundle)) is None:
        with tempfile.TemporaryDirectory() as scratch:
            store.put(bundle, registry.download_bundle(registry.get(record.solution, record.version), Path(scratch)))
        folder = store.get(bundle)
    assert folder is not None  # it was just put there, and is in use
    return folder


def keep_bundle(settings: Settings, model: RegisteredModel, folder: Path) -> None:
    """Put the bundle in `folder`, which was just registered as `model`, where its readers look for it."""
    bundles_of(settings, model).put(StoredBundle(model.version, tree_hash(folder_files(folder))), folder)


def bundles_of(settings: Settings, model: RegisteredModel) -> SolutionBundles:
    """The stored bundles of the solution of `model`."""
    return open_bundle_store(settings).of(model.solution)


def _with_remedy(error: Exception, folder: Path) -> str:
    return (
        f"{error} Remove {folder} to have the bundle fetched from the model registry again; if it is refused "
        "then too, restore the artifacts of its run from a backup, or train again."
    )
