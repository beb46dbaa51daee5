"""The serving bundle of a version on this machine, verified against its signed record at every use.

`model` keeps the bundle that it wrote here, so that evaluation and deployment download nothing; a machine that lacks it fetches it from
the registry. `deployment` decides what may predict.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.clients.bundle_record import BundleRecord, EvidenceError
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core.settings import Settings
from mlops_assets.training.acceptance import gates_problem
from mlops_assets.training.kept_folders import copy_of, keep_folder

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
    from mlops_assets.serving.bundle import BundleError, load_bundle

    record, folder = registry.registered_record(model), bundle_folder(registry, settings, model)
    try:
        return load_bundle(folder, record.files)
    except BundleError as error:
        raise BundleError(_with_remedy(error, folder)) from error


def read_contract(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> "Contract":
    """The contract of the bundle of `model`, without its model. Raises as `read_bundle` does."""
    from mlops_assets.serving.bundle import BundleError, load_contract

    record, folder = registry.registered_record(model), bundle_folder(registry, settings, model)
    try:
        return load_contract(folder, record.files)
    except BundleError as error:
        raise BundleError(_with_remedy(error, folder)) from error


def bundle_folder(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> Path:
    """The folder of the model's serving bundle on this machine, fetched from the registry when it is not there yet.

    It appears complete or not at all, so that a server never reads half a bundle. Nothing is verified here.
    """
    target = _folder(settings, model)
    if not target.exists():
        keep_folder(target, lambda scratch: registry.download_bundle(model, scratch))
    return target


def keep_bundle(settings: Settings, model: RegisteredModel, folder: Path) -> None:
    """Copy the bundle in `folder`, which was just registered as `model`, to where this machine's readers look for it."""
    keep_folder(_folder(settings, model), copy_of(folder))


def _folder(settings: Settings, model: RegisteredModel) -> Path:
    return settings.serving_directory / model.solution / str(model.version)


def _with_remedy(error: Exception, folder: Path) -> str:
    return (
        f"{error} Remove {folder} to have the bundle fetched from the model registry again; if it is refused "
        "then too, restore the artifacts of its run from a backup, or train again."
    )
