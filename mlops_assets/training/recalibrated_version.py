"""Recalibrated versions: the model file of a registered version, and a recalibration fitted on later rows. Nothing else is fitted.

The rows are those of a training dataset that were predicted from the training date of that version on, which it has seen none of. The
recalibration that the gates evaluate is fitted without the hold-out where enough rows lie before it, as with any model.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from msgspec.structs import replace

from mlops_assets.clients.bundle_record import GATED_FOLDER, BundleRecord, TrainingIdentity
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RECALIBRATION_TAG, RegisteredModel
from mlops_assets.clients.trusted_types import RegistryError
from mlops_assets.core.prediction_columns import predictions_array
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.stages.execution import permanent_failure
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import bundles_of, fitted_version, keep_bundle, read_bundle, require_passed_gates
from mlops_assets.training.candidate import TrainingDataset, describe_version, log_training_dataset, training_run, version_tags
from mlops_assets.training.training_dataset import dataset_rows_query

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.recalibration import Method
    from mlops_assets.serving.bundle import Bundle
    from mlops_assets.serving.contract import BaseVersion

_FITTED_ON_HOLDOUT = "fitted_on_holdout"
"""Parameter of the run: whether the recalibration that the gates evaluate was fitted on the hold-out."""


@dataclass(frozen=True)
class Base:
    """The fitted version that is recalibrated, with its signed record, its bundle, and the content of its model file."""

    model: RegisteredModel
    record: BundleRecord
    bundle: "Bundle"
    content: bytes

    @property
    def training_date(self) -> date:
        """The date from which on it has seen no row."""
        return self.record.training.training_date

    @property
    def method(self) -> "Method":
        """The method of recalibration with the fewest parameters."""
        from mlops_assets.ml.recalibration import METHODS

        return METHODS[self.bundle.contract.problem][0]

    def identify(self, training: TrainingIdentity, inputs: SolutionInputs) -> TrainingIdentity:
        """The identity of its recalibration where `training` would be that of a fit on the same dataset."""
        days = [each.isoformat() for each in fitted_days(inputs, training.training_date, self.training_date)]
        content = {"bundle": self.record.sha256, "method": self.method, "days": days}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return replace(training, configuration_hash=digest[:16], recalibrates=self.model.version)


def read_base(
    instance: dg.DagsterInstance, registry: ModelRegistry, settings: Settings, inputs: SolutionInputs, version: int
) -> Base:
    """The fitted version behind `version`: a recalibrated one is not recalibrated twice. Raises Failure when it cannot be recalibrated.

    Raises EvidenceError unless it passed its gates: a recalibration must not bring in what they refused.
    """
    if not inputs.solution.spine.has_time:
        raise permanent_failure(
            f"No version of {inputs.name} can be recalibrated: its table has no time, and thus no later rows. Train it anew."
        )
    try:
        model = fitted_version(registry, registry.get(inputs.name, version))
    except RegistryError as error:
        raise permanent_failure(f"recalibrate: {error} `mlops history {inputs.name}` lists those that served.") from error
    if model.segment != inputs.segment:
        rows = f"the segment {model.segment}" if model.segment else "all rows"
        raise permanent_failure(f"recalibrate: {model} was trained on {rows}: name a version of this partition's own.")
    require_passed_gates(instance, registry, model)
    with bundles_of(settings, model).using():
        bundle = read_bundle(registry, settings, model)
        content = (bundle.path / bundle.contract.model_file).read_bytes()
    base = Base(model, registry.registered_record(model), bundle, content)
    if changed := _changed_inputs(base, inputs):
        raise permanent_failure(
            f"{model} reads {', '.join(changed)} otherwise than the dataset has it, which is built from the present YAML: train a new version."
        )
    return base


def recalibrate_version(
    context: dg.AssetExecutionContext,
    registry: ModelRegistry,
    settings: Settings,
    inputs: SolutionInputs,
    *,
    lake: Lake,
    dataset: TrainingDataset,
    training: TrainingIdentity,
    base: Base,
) -> tuple[RegisteredModel, dict[str, Any]]:
    """Fit the recalibration of `base`, log and register. Returns the version and what the asset's page says of it."""
    fitted = _fit(lake, inputs, dataset.training_date, base)
    words = f"version {base.model.version} recalibrated ({base.method}) on {fitted.rows:,} rows known at {dataset.training_date}"
    with training_run(context, registry, inputs, training) as run_id:
        registry.log(
            run_id,
            parameters={
                "recalibrates": base.model.version,
                "method": base.method,
                **{f"recalibration.{name}": value for name, value in fitted.served.parameters.items()},
                "refit": fitted.is_refitted,
                _FITTED_ON_HOLDOUT: fitted.is_gated_on_holdout,
            },
            metrics={
                "recalibration_rows": fitted.rows,
                "training_rows": dataset.training_rows,
                "holdout_rows": dataset.holdout_rows,
            },
        )
        log_training_dataset(registry, run_id, inputs, dataset)
        tags = {**version_tags(context, inputs, dataset, training), RECALIBRATION_TAG: words}
        registered = registry.register_recalibration(inputs.name, run_id, tags)
        describe_version(registry, registered, inputs, f"{words[0].upper()}{words[1:]}.")
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            _write(bundle, base, fitted.served, registered, dataset)
            if fitted.is_refitted:
                _write(bundle / GATED_FOLDER, base, fitted.gated, registered, dataset)
            # The model file is the same, and so is how exactly it answers.
            registry.log_bundle(registered, bundle, training=training, precision=base.record.precision)
            keep_bundle(settings, registered, bundle)
    return registered, {
        "recalibrates": base.model.version,
        "parameters": dg.MetadataValue.json(fitted.served.model_dump(mode="json")["parameters"]),
        "refit": fitted.is_refitted,
        "fitted_rows": fitted.rows,
    }


def describe_recalibration(version: int, parameters: Mapping[str, str], *, is_refitted: bool) -> str:
    """The paragraph of a model card on the recalibration of `version`. `parameters` are those of the run."""
    if is_refitted:
        fitted = (
            "The one that was evaluated was fitted without the hold-out, the one that serves with those of its rows whose labels had time "
            "to come; the gate `refit` compares both."
        )
    elif parameters[_FITTED_ON_HOLDOUT] == str(True):
        fitted = "Too few of them lie before the hold-out: it was fitted on the hold-out, too."
    else:
        fitted = "The one that serves is the one that was evaluated: it was fitted without the hold-out."
    return (
        f"The model is that of version {version}, unchanged. Only a recalibration of its answers was fitted, on rows predicted since its "
        f"training date. {fitted} Monitoring compares with the reference of version {version}."
    )


@dataclass(frozen=True)
class _Fitted:
    """The recalibration that serves, fitted on so many `rows`, and the one that the gates evaluate, which may be the same."""

    served: "BaseVersion"
    gated: "BaseVersion"
    rows: int
    is_gated_on_holdout: bool

    @property
    def is_refitted(self) -> bool:
        return self.served is not self.gated


def fitted_days(inputs: SolutionInputs, training_date: date, base_date: date) -> tuple[date, date]:
    """The first day whose rows a recalibration of a version of `base_date` is fitted on, and the day before which those of the hold-out end.

    They are what decisions recalibrate by: the newest windows. Where labels come too late for `training.refit`, the rows of the newest days
    have those alone that came early, which are a selection: it ends before them.
    """
    from mlops_assets.ml.recalibration_methods import RECALIBRATION_WINDOWS

    solution = inputs.solution
    windows = [key for key in inputs.windows.get_partition_keys() if key < training_date.isoformat()][-RECALIBRATION_WINDOWS:]
    first = max(base_date, date.fromisoformat(windows[0])) if windows else base_date
    if solution.refits:
        return first, training_date
    # Without a refit by wish none of the hold-out is fitted on.
    newest = solution.monitoring.performance.label_delay if solution.training.refit is None else solution.training.holdout
    return first, subtract_duration(training_date, newest)


def _fit(lake: Lake, inputs: SolutionInputs, training_date: date, base: Base) -> _Fitted:
    """Fit on rows that `base` has not seen, for the gates without the hold-out where enough rows are left."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from mlops_assets.ml.recalibration_methods import FEWEST_ROWS

    first, end = fitted_days(inputs, training_date, base.training_date)
    with lake.connect(read_only=True) as connection:
        earlier, holdout = (
            connection.execute(dataset_rows_query(inputs, training_date, split, first)).to_arrow_table()
            for split in ("train", "holdout")
        )
    rows = pa.concat_tables([earlier, holdout])
    if rows.num_rows < FEWEST_ROWS:
        raise permanent_failure(
            f"{base.model} cannot be recalibrated for {training_date}: {rows.num_rows:,} rows of that training dataset were predicted from "
            f"{first} on, which it has not seen; at least {FEWEST_ROWS} are needed. Wait for more labels, or train a new version."
        )
    has_enough = earlier.num_rows >= FEWEST_ROWS
    labelled = holdout.filter(pc.field(inputs.solution.spine.prediction_time) < inputs.midnight(end))
    fitted_rows = pa.concat_tables([earlier, labelled]) if has_enough else rows
    try:
        served = _fit_on(inputs, base, fitted_rows)
        gated = _fit_on(inputs, base, earlier) if has_enough and labelled.num_rows else served
    except ValueError as error:
        raise permanent_failure(f"{base.model} cannot be recalibrated for {training_date}: {error}") from error
    return _Fitted(served, gated, fitted_rows.num_rows, is_gated_on_holdout=not has_enough)


def _fit_on(inputs: SolutionInputs, base: Base, rows: "pa.Table") -> "BaseVersion":
    from mlops_assets.ml.recalibration import fit_recalibration
    from mlops_assets.serving.contract import BaseVersion

    fitted = fit_recalibration(base.method, predictions_array(base.bundle.score(rows)), _labels(inputs, base, rows))
    fields = {"version": base.model.version, "method": fitted.method, "parameters": fitted.parameters}
    return BaseVersion.model_validate(fields)


def _labels(inputs: SolutionInputs, base: Base, rows: "pa.Table") -> "np.ndarray":
    """The labels of `rows`, of several classes as positions in those of the version. Raises ValueError for a class that it does not know."""
    import numpy as np

    from mlops_assets.schema.problem import label_array

    labels = label_array(rows.column(inputs.solution.spine.label), inputs.solution.problem)
    if inputs.solution.problem != "multiclass_classification":
        return labels
    positions = {value: position for position, value in enumerate(base.bundle.contract.classes)}
    if unknown := sorted({str(label) for label in labels.tolist() if label not in positions}):
        raise ValueError(f"later rows have classes that it does not know: {', '.join(unknown)}. Train a new version.")
    return np.array([positions[label] for label in labels.tolist()])


def _changed_inputs(base: Base, inputs: SolutionInputs) -> list[str]:
    """Names of the views and features that `base` reads and the present YAML has otherwise, or not at all."""
    contract = base.bundle.contract
    views = [view.name for view in contract.feature_views if inputs.view_versions.get(view.name) != view.version]
    derived = [feature.name for feature in contract.derived_features if inputs.derived.get(feature.name) != feature.expression]
    lacking = [name for name in contract.feature_schema.names if name not in inputs.features]
    return list(dict.fromkeys([*views, *derived, *lacking]))


def _write(path: Path, base: Base, recalibration: "BaseVersion", registered: RegisteredModel, dataset: TrainingDataset) -> None:
    """Write the bundle of `base`, recalibrated, as that of the version `registered` to the folder `path`."""
    from mlops_assets.serving.bundle import write_bundle
    from mlops_assets.serving.recalibrated_model import recalibrate_bundle

    bundle = recalibrate_bundle(
        base.bundle,
        recalibration,
        version=registered.version,
        run_id=registered.run_id,
        dataset_fingerprint=dataset.fingerprint,
    )
    write_bundle(path, base.content, bundle.sample, bundle.contract)
