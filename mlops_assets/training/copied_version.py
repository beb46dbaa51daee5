"""Copied versions: the bundle of a version of another environment, which is read and never written. Nothing is fitted.

What decides about the copy is this environment's own: its dataset, its gates, its champion. The copy is registered for a training date
before which the model has seen every row that it was fitted on, so that the hold-out of that date is as new to it as to a candidate.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from mlops_assets.clients.bundle_record import (
    GATED_FOLDER,
    BundleRecord,
    EvidenceError,
    Precision,
    TrainingIdentity,
    accepted_record,
)
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import ENVIRONMENT_TAG, ORIGIN_TAG, RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.clients.trusted_types import RegistryError, trusted_for
from mlops_assets.core.errors import StackError
from mlops_assets.core.other_environments import other_settings
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.stages.execution import permanent_failure
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import keep_bundle
from mlops_assets.training.candidate import TrainingDataset, describe_version, log_training_dataset, training_run, version_tags
from mlops_assets.training.copied_contract import differences, seen_rows
from mlops_assets.training.training_dataset import dataset_rows_query

if TYPE_CHECKING:
    import dagster as dg
    import pyarrow as pa

    from mlops_assets.serving.bundle import Bundle

_CARD, _EVALUATION = "model_card.md", "evaluation.json"
_COPIED_TEXTS = "origin"
"""Folder of the artifacts of a copy with the model card and the evaluation of where it was made."""
_PARITY_ROWS = 20_000


@dataclass(frozen=True)
class Original:
    """An accepted version of another environment, and the registry that has it."""

    environment: str
    registry: ModelRegistry
    model: RegisteredModel
    record: BundleRecord

    @property
    def name(self) -> str:
        """What a copy is said to be copied from."""
        return f"{self.environment} version {self.model.version}"

    def identify(self, training: TrainingIdentity) -> TrainingIdentity:
        """The identity of its copy where `training` would be that of a fit on the same dataset."""
        digest = hashlib.sha256(f"{self.name} {self.record.sha256}".encode()).hexdigest()
        return replace(training, configuration_hash=digest[:16], copied_from=self.name)

    @contextmanager
    def bundles(self) -> "Iterator[tuple[Bundle, Bundle]]":
        """The bundle that serves and that of the gated fit, compared with the signed record. Raises BundleError when one was changed."""
        from mlops_assets.serving.bundle_loading import load_bundle

        prefix = f"{GATED_FOLDER}/"
        gated_files = {name.removeprefix(prefix): sha for name, sha in self.record.files.items() if name.startswith(prefix)}
        with tempfile.TemporaryDirectory() as folder:
            path = self.registry.download_bundle(self.model, Path(folder))
            served = load_bundle(path, self.record.files)
            yield served, load_bundle(path / GATED_FOLDER, gated_files) if gated_files else served


def read_original(environment: str, solution: str, version: int | None, segment: str | None) -> Original:
    """The version of `environment` of all rows or of a `segment`, its champion where none is named, with its signed record.

    Raises StackError when the environment cannot be read, or has no such version that passed its gates there.
    """
    settings = other_settings(environment)
    registry = _registry_to_read(settings, environment)
    try:
        model = registry.champion(solution, segment) if version is None else registry.get(solution, version)
        if model is None:
            raise StackError(
                f"{solution} has no champion{f' of the segment {segment}' if segment else ''} in {environment}.",
                remedy="Name a version that passed its gates there.",
            )
        record, _ = accepted_record(registry.signer, model)
    except (RegistryError, EvidenceError) as error:
        raise StackError(f"In {environment}: {error}", remedy=f"mlops --env {environment} history {solution}") from error
    if record.training.recalibrates is not None:
        fitted = record.training.recalibrates
        raise StackError(
            f"{model} in {environment} is version {fitted}, recalibrated on the rows there, which says nothing of the rows here.",
            remedy=f"Copy what was fitted, --version {fitted}, and recalibrate it here: mlops train {solution} --recalibrate",
        )
    if model.segment != segment:
        rows = f"the segment {model.segment}" if model.segment else "all rows"
        raise StackError(f"{model} in {environment} is a model of {rows}.", remedy="Correct --version or --segment.")
    return Original(environment, registry, model, record)


def _registry_to_read(settings: Settings, environment: str) -> ModelRegistry:
    """The registry of another environment. Its secrets are read and never made: nothing is written there."""
    if not settings.access_token_file.is_file():
        raise StackError(f"{environment} has no {settings.access_token_file}.", remedy=f"mlops --env {environment} up")
    if not settings.signing_key_file.is_file():
        raise StackError(
            f"{environment} has no {settings.signing_key_file}: no version was registered there.",
            remedy=f"Train one: mlops --env {environment} train NAME",
        )
    return ModelRegistry(
        url=settings.mlflow_url,
        token=settings.access_token_file.read_text().strip(),
        signer=Signer(settings.signing_key_file),
        authorities=settings.listening.authorities,
    )


def copy_version(
    context: "dg.AssetExecutionContext",
    registry: ModelRegistry,
    settings: Settings,
    inputs: SolutionInputs,
    *,
    lake: Lake,
    dataset: TrainingDataset,
    training: TrainingIdentity,
    original: Original,
) -> tuple[RegisteredModel, dict[str, Any]]:
    """Register a copy of `original`, compared with its pipeline on the hold-out here. Returns the version and what the asset's page says.

    Raises Failure when the model reads something else than there is here, or has seen rows of the hold-out; BundleError when its bundle is
    not the signed one.
    """
    made_for = original.record.training.training_date
    with lake.connect(read_only=True) as connection:
        holdout = connection.execute(dataset_rows_query(inputs, dataset.training_date, "holdout")).to_arrow_table()
    parameters = original.registry.parameters(original.model.run_id)
    with original.bundles() as (served, gated):
        if problems := [
            *differences(served.contract, inputs, holdout),
            *seen_rows(inputs, parameters, made_for, dataset.training_date),
        ]:
            raise permanent_failure(
                f"{original.name} of {inputs.name} does not fit here, and is not copied: {'; '.join(problems)}."
            )
        pipeline = _read_pipeline(original, inputs)
        measured = _measure(pipeline, served, inputs, holdout)
        with training_run(context, registry, inputs, training) as run_id:
            registry.log(
                run_id,
                parameters={**parameters, "copied_from": original.name, "trained_for": made_for},
                metrics={
                    "onnx_rows": measured.rows,
                    "onnx_largest_difference": measured.largest_difference,
                    "training_rows": dataset.training_rows,
                    "holdout_rows": dataset.holdout_rows,
                },
            )
            log_training_dataset(registry, run_id, inputs, dataset)
            _copy_texts(original, registry, run_id)
            tags = {
                **version_tags(context, inputs, dataset, training),
                ENVIRONMENT_TAG: original.environment,
                ORIGIN_TAG: json.dumps(_origin(original)),
            }
            registered = registry.register(inputs.name, run_id, pipeline, tags)
            words = f"Copied from {original.name}, trained there for {made_for}; evaluated here for {dataset.training_date}."
            describe_version(registry, registered, inputs, words)
            with tempfile.TemporaryDirectory() as folder:
                bundle = Path(folder) / "bundle"
                _write(bundle, served, registered, dataset)
                if gated is not served:
                    _write(bundle / GATED_FOLDER, gated, registered, dataset)
                registry.log_bundle(registered, bundle, training=training, precision=_worst(measured, original.record.precision))
                keep_bundle(settings, registered, bundle)
    return registered, {"copied_from": original.name, "trained_for": made_for.isoformat()}


def _read_pipeline(original: Original, inputs: SolutionInputs) -> Any:
    """The fitted pipeline in its skops file, loaded with the types that a pipeline of this solution may hold. Raises Failure for any other."""
    from skops import io

    with tempfile.TemporaryDirectory() as folder:
        content = original.registry.download_pipeline(original.model, Path(folder))
    try:
        trusted = trusted_for(content, _step_classes(inputs))
    except RegistryError as error:
        raise permanent_failure(f"The pipeline of {original.name} is not loaded. {error}") from error
    return io.loads(content, trusted=trusted)


def _step_classes(inputs: SolutionInputs) -> list[str]:
    """The classes of the steps that the YAML names, those of its search included."""
    training = inputs.solution.training
    steps = [training.estimator, *(training.preprocessing.numeric or []), *(training.preprocessing.categorical or [])]
    return [step.type for step in (*steps, *(training.search.candidates if training.search else []))]


def _measure(pipeline: Any, served: "Bundle", inputs: SolutionInputs, holdout: "pa.Table") -> Precision:
    """How exactly the served model answers as the pipeline does, on the hold-out here."""
    from mlops_assets.ml.matrix import to_exact_frame, to_frame
    from mlops_assets.ml.onnx import measure_parity, measure_rounding
    from mlops_assets.ml.skops_model import SkopsModel

    contract, problem, limit = served.contract, served.contract.problem, inputs.solution.gates.maximum_onnx_difference
    schema, rows = contract.feature_schema, holdout.slice(0, _PARITY_ROWS)
    model = served.model if isinstance(served.model, SkopsModel) else (served.path / contract.model_file).read_bytes()
    compared = measure_parity(pipeline, model, to_frame(rows, schema), schema, problem)
    rounded = measure_rounding(pipeline, model, to_exact_frame(rows, schema), schema, problem, limit)
    return Precision(
        rows=compared.rows,
        largest_difference=compared.largest_relative_difference,
        float32_changed=rounded.changed_share,
        float32_mean_change=rounded.mean_change,
    )


def _worst(here: Precision, there: Precision) -> Precision:
    """The larger of each difference here and there, where the gated fit was compared, too."""
    return Precision(
        rows=here.rows,
        largest_difference=max(here.largest_difference, there.largest_difference),
        float32_changed=max(here.float32_changed, there.float32_changed),
        float32_mean_change=max(here.float32_mean_change, there.float32_mean_change),
    )


def _write(path: Path, bundle: "Bundle", registered: RegisteredModel, dataset: TrainingDataset) -> None:
    """Write `bundle` as that of the version `registered` to the folder `path`: model and sample are the same files."""
    from mlops_assets.serving.bundle import write_bundle

    contract = bundle.contract.model_copy(
        update={"version": registered.version, "run_id": registered.run_id, "dataset_fingerprint": dataset.fingerprint}
    )
    write_bundle(path, (bundle.path / contract.model_file).read_bytes(), bundle.sample, contract)


def _copy_texts(original: Original, registry: ModelRegistry, run_id: str) -> None:
    """Keep the model card and the evaluation with its gates, as they were where the version was made."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (_CARD, _EVALUATION):
            path = original.registry.download(original.model.run_id, name, Path(folder))
            registry.log_texts(run_id, {f"{_COPIED_TEXTS}/{name}": path.read_text()})


def _origin(original: Original) -> dict[str, Any]:
    tags, training = original.model.tags, original.record.training
    return {
        "environment": original.environment,
        "version": original.model.version,
        "training_date": training.training_date.isoformat(),
        "dataset_fingerprint": training.dataset_fingerprint,
        "lake_snapshot": tags.get("lake_snapshot"),
        "feature_views": json.loads(tags.get("feature_views", "{}")),
        "dagster_run": tags.get("dagster_run_id"),
        "mlflow_run": original.model.run_id,
        "bundle_sha256": original.record.sha256,
    }
