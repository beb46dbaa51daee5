"""The realised metrics of a challenger and its champion on the same requests, once their labels are known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.trusted_types import RegistryError
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import OUTCOMES
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import is_one_of, literal, quote
from mlops_assets.lake.tables import table_exists
from mlops_assets.operations.solutions import declared_solution
from mlops_assets.operations.trial import compare_versions, pair_predictions
from mlops_assets.schema.column_names import MATURED, OUTPUTS, PREDICTION_ID, internal
from mlops_assets.serving.bundle import BundleError
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import read_contract
from mlops_assets.training.candidate_evaluation import evaluated_predictions

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.comparison import MetricDifference
    from mlops_assets.ml.weighted_metrics import WeightedMetrics
    from mlops_assets.serving.contract import Contract

_DAY = internal("day")
_PREFIXES = (internal("champion"), internal("challenger"))
"""Of the names of what each predicted."""


@dataclass(frozen=True)
class RealisedComparison:
    """The metrics on the `rows` requests with known labels: the challenger's minus the champion's, by name.

    Without `differences` the `obstacle` is why.
    """

    rows: int
    differences: "dict[str, MetricDifference]"
    obstacle: str | None = None


def compare_challengers(settings: Settings, solution: str) -> list[dict[str, Any]]:
    """Return the entries of `trial.compare_versions`, each with its `realised` metrics; values suit JSON.

    Raises StackError when no challenger predicted, or a version cannot be read.
    """
    registry = ModelRegistry.from_settings(settings)
    inputs = resolve_inputs(declared_solution(solution), FeatureRegistry.from_manifest(current_project().dbt_manifest))

    def contract(version: int) -> "Contract":
        return read_contract(registry, settings, registry.get(solution, version))

    with Lake.from_settings(settings).connect(read_only=True) as connection:
        entries = compare_versions(connection, solution)
        try:
            for entry in entries:
                versions = {role: entry[role] for role in ("champion", "challenger")}
                entry["realised"] = _plain(compare_realised(connection, inputs, contract, **versions))
        except (EvidenceError, BundleError, RegistryError) as error:
            raise StackError(str(error), remedy="mlops open mlflow") from error
    return entries


def _plain(compared: RealisedComparison) -> dict[str, Any]:
    return {
        "rows": compared.rows,
        "obstacle": compared.obstacle,
        "metrics": {
            name: {
                "champion": difference.theirs,
                "challenger": difference.ours,
                "difference": difference.value,
                "low": difference.interval.low if difference.interval else None,
                "high": difference.interval.high if difference.interval else None,
            }
            for name, difference in compared.differences.items()
        },
    }


def compare_realised(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    contract: "Callable[[int], Contract]",
    *,
    champion: int,
    challenger: int,
) -> RealisedComparison:
    """Return the paired differences of all metrics of the solution, with intervals that draw whole days.

    `contract` gives that of a version. `connection` is to the lake.
    """
    from mlops_assets.ml.bootstrap import number_blocks
    from mlops_assets.ml.comparison import compare_rows
    from mlops_assets.ml.evaluation import Resampling

    contracts = contract(champion), contract(challenger)
    if contracts[0].classes != contracts[1].classes:
        return RealisedComparison(0, {}, "the versions know other classes")
    if not table_exists(connection, inputs.table(OUTCOMES)):
        return RealisedComparison(0, {}, f"no label is known yet: {inputs.name}/{OUTCOMES} was never materialized")
    rows = _labelled_pairs(connection, inputs, contracts[0], champion, challenger)
    if not rows.num_rows:
        return RealisedComparison(0, {}, f"no label of these requests is known yet, as {inputs.name}/{OUTCOMES} has it")
    blocks = number_blocks(rows.column(_DAY).to_numpy())
    theirs, ours = (_evaluated(inputs, of_version, rows, prefix) for of_version, prefix in zip(contracts, _PREFIXES, strict=True))
    resampling = Resampling(seed=inputs.solution.training.seed, slice_metrics=(), blocks=blocks)
    return RealisedComparison(rows.num_rows, compare_rows(ours, theirs, names=inputs.solution.metrics, resampling=resampling))


def _labelled_pairs(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, contract: "Contract", champion: int, challenger: int
) -> "pa.Table":
    """The requests that both versions predicted and whose label is known, in order of time: the outputs of both, the label and the day."""
    spine = inputs.solution.spine
    pairs = pair_predictions(connection, inputs.name)
    outputs = [name for name in OUTPUTS if name in pairs.columns]
    selected = ", ".join(
        f"{side}.{quote(name)} AS {quote(f'{prefix}{name}')}"
        for side, prefix in zip(("a", "b"), _PREFIXES, strict=True)
        for name in outputs
    )
    label, local = (
        quote(spine.label),
        f"o.{quote(spine.prediction_time)} AT TIME ZONE {literal(inputs.solution.partitions.time_zone)}",
    )
    known = f"o.{MATURED}"
    if inputs.solution.problem == "multiclass_classification":
        # A class that the models do not have is one that neither could have predicted.
        known += f" AND {is_one_of(f'CAST(o.{label} AS VARCHAR)', map(str, contract.classes))}"
    # The outcomes have the one of both that was answered.
    return connection.execute(
        f"SELECT {selected}, o.{label}, CAST({local} AS DATE) AS {_DAY} FROM {pairs.relation} "
        f"JOIN lake.{inputs.table(OUTCOMES)} o ON o.{PREDICTION_ID} = CASE WHEN {pairs.is_answered_by_challenger} "
        f"THEN b.{PREDICTION_ID} ELSE a.{PREDICTION_ID} END WHERE a.model_version = {champion} AND b.model_version = {challenger} "
        f"AND {known} ORDER BY o.{quote(spine.prediction_time)}, a.{PREDICTION_ID}"
    ).to_arrow_table()


def _evaluated(inputs: SolutionInputs, contract: "Contract", rows: "pa.Table", prefix: str) -> "WeightedMetrics":
    import pyarrow as pa

    from mlops_assets.schema.problem import label_array

    of_version = [name for name in rows.column_names if name.startswith(prefix)]
    predicted = pa.table({name.removeprefix(prefix): rows.column(name) for name in of_version})
    labels = label_array(rows.column(inputs.solution.spine.label), inputs.solution.problem)
    return evaluated_predictions(inputs.solution, contract, predicted, labels)
