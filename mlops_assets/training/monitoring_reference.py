"""The reference of a model version, stored with its run in MLflow: written by `evaluation`, read by every report.

Whatever becomes of the training dataset, the version is compared with the rows of its evaluation. The evaluation signs the files: a reference
that somebody replaced, and that would silence the reports, is refused. A copy by version lies on this machine: whenever it is not what
was signed, it is fetched again.
"""

import hashlib
import json
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from mlops_assets.clients.bundle_record import EvidenceError, reference_remedy
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core.prediction_columns import prediction_columns
from mlops_assets.core.settings import Settings
from mlops_assets.lake.sql import quote
from mlops_assets.schema.cadence import CADENCE_LENGTHS
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.kept_folders import copy_of, keep_folder

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.best_version import Leads
    from mlops_assets.ml.reference import MonitoredColumn, Reference
    from mlops_assets.ml.reference_windows import Variation
    from mlops_assets.ml.usual_drift import UsualDrift
    from mlops_assets.training.reference_period import ReferencePeriod

_COLUMNS, _MASSES, _ROWS, _FACTS = "columns.parquet", "masses.parquet", "rows.parquet", "facts.json"
_METRICS, _DISTANCES = "window_metrics.parquet", "window_distances.parquet"
"""Of versions whose period has enough windows, since these files were introduced."""

_SUMMARISED_ROWS = 50_000
"""Of the period: more make its summary dearer and its thresholds hardly tighter."""


@dataclass(frozen=True)
class VersionReference:
    """The reference: its summary, the rows and partitions of the hold-out, and its scored rows (a sample of a large hold-out).

    The summary is of the whole period of training and hold-out where it has enough windows, else of the hold-out. Predictions are always those
    of the hold-out: the model was fitted on the others. `variation` is by how much the metrics of the windows of the period differ,
    `usual_drift` how far their rows are from the whole, `importance` by how much the metric gets worse without a feature, `leads` are those of
    the best versions over this one.
    """

    summary: "Reference"
    partitions: int
    rows: "pa.Table"
    variation: "Variation"
    usual_drift: "UsualDrift"
    importance: Mapping[str, float]
    leads: "Leads"


def log_reference(
    connection: duckdb.DuckDBPyConnection,
    registry: ModelRegistry,
    settings: Settings,
    inputs: SolutionInputs,
    *,
    candidate: RegisteredModel,
    holdout: "pa.Table",
    scored: "pa.Table",
    period: "ReferencePeriod | None",
    importance: Mapping[str, float],
    leads: "Leads",
) -> None:
    """Summarise the `period`, or without one the `holdout` and its predictions `scored`, and store it with the run of `candidate`.

    `importance` is by how much the metric gets worse without a feature, `leads` are those of the best version.
    """
    from pyarrow import parquet

    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.reference import summarise
    from mlops_assets.training.window_distances import measure_windows

    rows = holdout
    for name in prediction_columns(scored):
        rows = rows.append_column(name, scored.column(name))
    monitored = monitored_columns(inputs, rows.schema)
    slices = inputs.solution.gates.slices
    # Of a version with a period the hold-out is the reference of its predictions alone.
    own = monitored if period is None else [column for column in monitored if column.kind == "prediction"]
    summary = summarise(rows, own, slices)
    columns = [*(column.name for column in monitored), *slices, *prediction_columns(scored)]
    connection.register("reference_rows", rows)
    sample = connection.execute(
        f"SELECT {', '.join(quote(name) for name in dict.fromkeys(columns))} FROM reference_rows "
        f"ORDER BY hash({quote(inputs.solution.spine.key)}) LIMIT {inputs.solution.monitoring.drift.maximum_rows}"
    ).to_arrow_table()
    days = rows.column(inputs.solution.partitions.column).unique().to_pylist()
    partitions, windows = count_partitions(inputs, days), _count_windows(inputs, days)
    tables = {_COLUMNS: summary.columns, _MASSES: summary.masses, _ROWS: sample}
    if period is not None:
        ignored = inputs.solution.monitoring.drift.ignore
        features = FeatureSchema.from_arrow(sample.schema, [name for name in inputs.features if name not in ignored])
        summarised = period.sample(_SUMMARISED_ROWS)
        whole = summarise(summarised, monitored, slices)
        tables |= {
            _COLUMNS: _replace_features(whole.columns, summary.columns, own),
            _MASSES: _replace_features(whole.masses, summary.masses, own),
            _METRICS: period.metrics,
            _DISTANCES: measure_windows(connection, summarised, whole, sample, features, held_out=windows),
        }
    with tempfile.TemporaryDirectory() as folder:
        for name, table in tables.items():
            parquet.write_table(table, Path(folder) / name)
        facts = {"rows": summary.rows, "partitions": partitions, "windows": windows, "importance": importance}
        facts["leads"] = {metric: asdict(lead) for metric, lead in leads.items()}
        (Path(folder) / _FACTS).write_text(json.dumps(facts))
        _store(registry, settings, candidate, Path(folder))


def copy_reference(registry: ModelRegistry, settings: Settings, candidate: RegisteredModel, base: RegisteredModel) -> None:
    """Store the reference of `base` with the run of `candidate`, too. Raises EvidenceError as `load_reference` does."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in _signed_files(registry, settings, base).items():
            (Path(folder) / name).write_bytes(content)
        _store(registry, settings, candidate, Path(folder))


def _store(registry: ModelRegistry, settings: Settings, candidate: RegisteredModel, folder: Path) -> None:
    registry.log_reference(candidate, folder)
    keep_folder(_folder(settings, candidate), copy_of(folder))


def _replace_features(summary: "pa.Table", replacements: "pa.Table", columns: Sequence["MonitoredColumn"]) -> "pa.Table":
    """The table of a `summary` with the `replacements` in place of its rows of `columns`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    replaced = pc.is_in(summary.column("feature"), pa.array([column.name for column in columns], pa.string()))
    return pa.concat_tables([summary.filter(pc.invert(replaced)), replacements])


def count_partitions(inputs: SolutionInputs, days: Iterable[date]) -> int:
    """Count the partitions of the solution from the first of `days` to the last, those without a row included."""
    starts = inputs.partitions.get_partition_keys()
    positions = [bisect_right(starts, day.isoformat()) for day in days]
    return max(positions) - min(positions) + 1


def _count_windows(inputs: SolutionInputs, days: Iterable[date]) -> float:
    """Return how many monitoring windows are as long as the span of `days`."""
    ordered = sorted(days)
    return ((ordered[-1] - ordered[0]).days + 1) / CADENCE_LENGTHS[inputs.solution.monitoring.window].fewest_days


def load_reference(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> VersionReference:
    """The reference of a version. Raises EvidenceError unless it is the one that the version's evaluation signed."""
    import pyarrow as pa
    from pyarrow import parquet

    from mlops_assets.ml.reference import Reference
    from mlops_assets.ml.reference_windows import NO_VARIATION, variation_between
    from mlops_assets.ml.usual_drift import NOTHING_USUAL, usual_drift

    files = _signed_files(registry, settings, model)
    facts = json.loads(files[_FACTS])
    columns, masses, rows = (parquet.read_table(pa.BufferReader(files[name])) for name in (_COLUMNS, _MASSES, _ROWS))
    variation, usual = NO_VARIATION, NOTHING_USUAL
    if _METRICS in files:
        variation = variation_between(parquet.read_table(pa.BufferReader(files[_METRICS])), facts["windows"])
    if _DISTANCES in files:
        usual = usual_drift(parquet.read_table(pa.BufferReader(files[_DISTANCES])))
    return VersionReference(
        summary=Reference(columns=columns, masses=masses, rows=facts["rows"]),
        partitions=facts["partitions"],
        rows=rows,
        variation=variation,
        usual_drift=usual,
        importance=facts.get("importance", {}),
        leads=_leads(facts),
    )


def load_leads(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> "Leads":
    """The leads over a version; none over one without a reference. Raises EvidenceError as `load_reference` does."""
    if not registry.has_reference(model):
        return {}
    return _leads(json.loads(_signed_files(registry, settings, model)[_FACTS]))


def _leads(facts: Mapping[str, Any]) -> "Leads":
    """The leads in the facts of a reference; one of an earlier release has none."""
    from mlops_assets.ml.best_version import Lead

    return {metric: Lead(**values) for metric, values in facts.get("leads", {}).items()}


def _signed_files(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> dict[str, bytes]:
    """The content of each file of the reference, compared with its record."""
    record, folder = registry.reference_record(model), _folder(settings, model)
    if not _changed(record.files, kept := _contents(folder)):
        return kept
    if not registry.has_reference(model):
        raise EvidenceError(f"The monitoring reference of {model} is missing in MLflow. {reference_remedy(model)}")
    keep_folder(folder, lambda scratch: registry.download_reference(model, scratch))
    if changed := _changed(record.files, fetched := _contents(folder)):
        raise EvidenceError(
            f"The monitoring reference of {model} in MLflow is not the one that its evaluation signed ({', '.join(changed)}). "
            f"{reference_remedy(model)}"
        )
    return fetched


def _folder(settings: Settings, model: RegisteredModel) -> Path:
    return settings.references_directory / model.solution / str(model.version)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def _changed(signed: Mapping[str, str], contents: Mapping[str, bytes]) -> list[str]:
    """Names of signed files that are missing or have other bytes. What is read is what is compared."""
    return sorted(
        name for name, sha256 in signed.items() if name not in contents or hashlib.sha256(contents[name]).hexdigest() != sha256
    )


def monitored_columns(inputs: SolutionInputs, schema: "pa.Schema") -> list["MonitoredColumn"]:
    """The features, the prediction and the label of scored rows with `schema`, as far as it has them."""
    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.reference import MonitoredColumn

    solution = inputs.solution
    numeric = FeatureSchema.from_arrow(schema, inputs.features).numeric
    prediction = {"binary_classification": "score", "multiclass_classification": "predicted_label", "regression": "value"}
    monitored = [MonitoredColumn(name, "feature", name in numeric) for name in inputs.features]
    monitored.append(MonitoredColumn(prediction[solution.problem], "prediction", solution.problem != "multiclass_classification"))
    monitored.append(MonitoredColumn(solution.spine.label, "label", solution.problem == "regression"))
    return [column for column in monitored if column.name in schema.names]
