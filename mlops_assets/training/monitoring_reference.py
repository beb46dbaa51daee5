"""The reference of a model version, stored with its run in MLflow: written by `evaluation`, read by every report.

Whatever becomes of the training dataset, the version is compared with the rows of its evaluation. The evaluation signs the files: a reference
that somebody replaced, and that would silence the reports, is refused. A copy by version lies on this machine: whenever it is not what
was signed, it is fetched again.
"""

import hashlib
import json
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

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

    from mlops_assets.ml.reference import MonitoredColumn, Reference
    from mlops_assets.ml.reference_windows import Variation

_COLUMNS, _MASSES, _ROWS, _FACTS = "columns.parquet", "masses.parquet", "rows.parquet", "facts.json"
_METRICS = "window_metrics.parquet"
"""Of versions whose period has enough windows, since this file was introduced."""


@dataclass(frozen=True)
class VersionReference:
    """The reference: the summary of the whole hold-out, how many partitions it spans, and the scored rows (a sample of a large hold-out).

    `variation` is by how much the metrics of windows differ inside the period of training and hold-out.
    """

    summary: "Reference"
    partitions: int
    rows: "pa.Table"
    variation: "Variation"


def log_reference(
    connection: duckdb.DuckDBPyConnection,
    registry: ModelRegistry,
    settings: Settings,
    inputs: SolutionInputs,
    *,
    candidate: RegisteredModel,
    holdout: "pa.Table",
    scored: "pa.Table",
    period: "pa.Table | None",
) -> None:
    """Summarise the `holdout` and its predictions `scored`, and store them with the run of `candidate`.

    `period` is that of `reference_period.measure_period`.
    """
    from pyarrow import parquet

    from mlops_assets.ml.reference import summarise

    rows = holdout
    for name in prediction_columns(scored):
        rows = rows.append_column(name, scored.column(name))
    monitored = monitored_columns(inputs, rows.schema)
    slices = inputs.solution.gates.slices
    summary = summarise(rows, monitored, slices)
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
        tables[_METRICS] = period
    with tempfile.TemporaryDirectory() as folder:
        for name, table in tables.items():
            parquet.write_table(table, Path(folder) / name)
        (Path(folder) / _FACTS).write_text(json.dumps({"rows": summary.rows, "partitions": partitions, "windows": windows}))
        registry.log_reference(candidate, Path(folder))
        keep_folder(_folder(settings, candidate), copy_of(Path(folder)))


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

    files = _signed_files(registry, settings, model)
    facts = json.loads(files[_FACTS])
    columns, masses, rows = (parquet.read_table(pa.BufferReader(files[name])) for name in (_COLUMNS, _MASSES, _ROWS))
    variation = NO_VARIATION
    if _METRICS in files:
        variation = variation_between(parquet.read_table(pa.BufferReader(files[_METRICS])), facts["windows"])
    return VersionReference(
        summary=Reference(columns=columns, masses=masses, rows=facts["rows"]),
        partitions=facts["partitions"],
        rows=rows,
        variation=variation,
    )


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
