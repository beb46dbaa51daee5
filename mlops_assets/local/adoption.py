"""New signatures for registered versions, made when deployed versions exist and no key does.

The evidence is Dagster's event log: a version is accepted when its newest evaluation there passed every gate. A version without a
record, as earlier releases registered them, gets no signature, and whoever reads it an error.
"""

import tempfile
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mlops_assets.clients.bundle_record import ACCEPTANCE_TAG, RECORD_TAG, BundleRecord, folder_files, with_engine, write_record
from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import GATES_PASSED, GATES_TAG, RegisteredModel
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings

_LIMIT = 1000
_EVALUATIONS = ("evaluation", "segment_evaluation")


def needs_signing(settings: Settings) -> bool:
    """Whether versions are deployed here, and there is no key."""
    served = settings.serving_directory
    return served.is_dir() and any(served.iterdir()) and not settings.signing_key_file.exists()


def sign_former_versions(settings: Settings) -> None:
    """Sign every registered bundle and monitoring reference as it is now, and the acceptance of each version that passed its gates.

    The bundles in the serving folder get their records.
    """
    registry, client = ModelRegistry.from_settings(settings), DagsterClient.from_settings(settings)
    for solution in (each.name for each in registry.client.search_registered_models()):
        evaluations = [event.metadata for stage in _EVALUATIONS for event in _events(client, f"{solution}/{stage}")]
        for model in (each for each in registry.versions(solution) if RECORD_TAG in each.tags):
            record = sign_version(registry, model)
            passed = next((each.get("gates_passed") for each in evaluations if each.get("model_version") == model.version), False)
            if passed and model.tags.get(GATES_TAG) == GATES_PASSED:
                record = with_engine(record, model)
                signed = record.sign(registry.signer, "accepted")
                registry.tag(solution, model.version, signed)
                _sign_served(settings, record, signed[ACCEPTANCE_TAG])


def _events(client: DagsterClient, key: str) -> list[Any]:
    try:
        return client.materializations(key, _LIMIT)
    except (KeyError, StackError):
        # The solution is gone, or has no models by segment.
        return []


def sign_version(registry: ModelRegistry, model: RegisteredModel) -> BundleRecord:
    """Sign the record of `model` with its bundle as it is now, and the monitoring reference if it was evaluated. Returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        files = folder_files(registry.download_bundle(model, Path(folder)))
        record = replace(BundleRecord.parse(model.tags[RECORD_TAG]), files=files)
        registry.sign_bundle(record)
        if registry.has_reference(model):
            registry.sign_reference(registry.get(model.solution, model.version), registry.download_reference(model, Path(folder)))
    return record


def _sign_served(settings: Settings, record: BundleRecord, signature: str) -> None:
    folder = settings.serving_directory / record.solution / str(record.version)
    if folder.is_dir() and folder_files(folder) == record.files:
        write_record(folder, record, signature)
