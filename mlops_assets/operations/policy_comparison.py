"""`mlops replay --policy`: update policies compared on a solution's rows of the lake, without runs and without the registry.

Every policy sees the same rows with the features as they were known at prediction time, and a label from the day after it became known.
Models are fitted here with the solution's estimator, without a search, a calibration or a chosen threshold.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import RETRAINING_DECISION
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import current_snapshot, fingerprint, table_exists
from mlops_assets.operations.changed_rows import RelationChange
from mlops_assets.operations.replay_plan import Period, ReplayPlan, StepLength
from mlops_assets.operations.solutions import declared_solution
from mlops_assets.schema.cadence import CADENCE_LENGTHS, Cadence
from mlops_assets.schema.duration import maximum_days
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.allowed_histories import stream_histories
from mlops_assets.training.candidate import current_configuration_hash
from mlops_assets.training.labelled_stream import solution_models

if TYPE_CHECKING:
    import dagster as dg
    import duckdb
    import pyarrow as pa

    from mlops_assets.ml.policy_comparison import ArmSettings, ArmSummary
    from mlops_assets.ml.prequential import ArmResult, Prequential

_PERIOD_DAYS = 28
_STEPS: dict[Cadence, StepLength] = {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}
_ROWS = "compared_rows"


@dataclass(frozen=True)
class PolicyComparison:
    """The policies on one solution: their summaries with that of the oracle, what each did in each window, and the file of the figure."""

    metric: str
    loss: str
    windows: Sequence[date]
    summaries: "Sequence[ArmSummary]"
    results: "dict[str, ArmResult]"
    plot_path: Path


def compare_policies(
    settings: Settings,
    solution: str,
    period: Period,
    names: Sequence[str],
    report: Callable[[str], None],
    *,
    change: RelationChange | None = None,
) -> PolicyComparison:
    """Compare the policies `names` ("every": all of them) on the windows of `period`, and show them in Dagster and as a file.

    With `change` the relation of features and label is another one in some rows. `report` hears what takes time. Raises StackError when the
    solution has no time, a policy is unknown, or there are no rows before the period to train on.
    """
    import dagster as dg

    inputs = resolve_inputs(declared_solution(solution), FeatureRegistry.from_manifest(current_project().dbt_manifest))
    folder = settings.home / "replay"
    with Lake.from_settings(settings).connect(read_only=True) as connection:
        comparison = compare_on_lake(connection, inputs, period, names, folder=folder, report=report, change=change)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        publish_comparison(instance, solution, comparison)
    return comparison


def compare_on_lake(
    connection: "duckdb.DuckDBPyConnection",
    inputs: SolutionInputs,
    period: Period,
    names: Sequence[str],
    *,
    folder: Path,
    report: Callable[[str], None],
    change: RelationChange | None = None,
) -> PolicyComparison:
    """Compare the policies on the rows of one lake; fits and the figure are kept in `folder`. Raises StackError."""
    from mlops_assets.ml.policy_comparison import build_arms, run_arms, summarise_arms
    from mlops_assets.ml.policy_plot import policy_plot

    solution = inputs.solution
    if not solution.spine.has_time:
        raise StackError(
            f"The table of {solution.name} has no time: there is nothing to compare.", remedy=f"mlops run {solution.name}"
        )
    arms = build_arms(arm_settings(solution))
    if unknown := sorted(set(names) - {*arms, "every"}):
        raise StackError(f"There is no policy {', '.join(unknown)}.", remedy=f"Choose of: {', '.join(arms)}, or every")
    chosen = {name: arm for name, arm in arms.items() if "every" in names or name in names}
    report("reading the rows")
    evaluation = _evaluation(connection, inputs, period, folder / "policies", change)
    results = run_arms(evaluation, chosen, report)
    metric, windows = solution.training.metric, [start for start, _ in evaluation.windows]
    path = folder / f"{solution.name}-policies.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(policy_plot(results, windows, metric))
    return PolicyComparison(
        metric=metric,
        loss=evaluation.loss_metric,
        windows=windows,
        summaries=summarise_arms(results, metric),
        results=results,
        plot_path=path,
    )


def publish_comparison(instance: "dg.DagsterInstance", solution: str, comparison: PolicyComparison) -> None:
    """Show table and figure in Dagster, as an observation of the solution's retraining decisions."""
    import dagster as dg

    from mlops_assets.ml.figures import markdown_image

    header = f"| policy | {comparison.metric} | worst window | fits | rollbacks | recalibrations |\n|---|---|---|---|---|---|"
    lines = [
        f"| {row.policy} | {row.metric:.4f} ({row.metric_low:.4f} to {row.metric_high:.4f}) | {row.worst:.3f} | {row.fits} | "
        f"{row.rollbacks} | {row.recalibrations} |"
        for row in comparison.summaries
    ]
    instance.report_runless_asset_event(
        dg.AssetObservation(
            asset_key=dg.AssetKey([solution, RETRAINING_DECISION]),
            description="Comparison of policies of retraining",
            metadata={
                "policies": dg.MetadataValue.md("\n".join([header, *lines])),
                "policies_by_window": dg.MetadataValue.md(markdown_image("policies", comparison.plot_path.read_bytes())),
            },
        )
    )


def arm_settings(solution: Solution) -> "ArmSettings":
    """Return what the YAML of a solution makes of the arms."""
    from mlops_assets.ml.policy_comparison import ArmSettings
    from mlops_assets.ml.training_forecast import TrainingCosts

    training, retraining = solution.training, solution.retraining
    window = maximum_days(training.window)
    return ArmSettings(
        window=window,
        period=max(_PERIOD_DAYS, CADENCE_LENGTHS[solution.monitoring.window].fewest_days),
        cooldown=maximum_days(retraining.cooldown),
        maximum_age=maximum_days(retraining.max_age) if retraining.max_age else None,
        minimum_bad_windows=retraining.minimum_bad_windows,
        recent_windows=retraining.recent_windows,
        minimum_new_rows=retraining.minimum_new_rows or 0,
        refused=retraining.refused,
        watch=retraining.watch,
        rolls_back=retraining.roll_back,
        recalibrates=retraining.recalibrate,
        forecasts=retraining.forecast,
        costs=None if retraining.costs is None else TrainingCosts(retraining.costs.training, retraining.costs.loss),
        refits=solution.refits,
        histories=stream_histories(solution, window_days=window),
    )


def _evaluation(
    connection: "duckdb.DuckDBPyConnection", inputs: SolutionInputs, period: Period, folder: Path, change: RelationChange | None
) -> "Prequential":
    import numpy as np

    from mlops_assets.ml.prequential import Prequential

    solution = inputs.solution
    table = labelled_rows(connection, inputs, period)
    if change is not None:
        table = change.apply(solution, table)
    connection.register(_ROWS, table)
    content = fingerprint(connection, _ROWS)
    models = solution_models(
        inputs,
        table,
        folder=folder,
        identity=hashlib.sha256(f"{content} {current_configuration_hash(inputs, with_budget=True)}".encode()).hexdigest(),
    )
    if not (models.stream.known <= np.datetime64(period.first)).any():
        raise StackError(
            f"No label of {solution.name} was known on {period.first}: there is nothing to train the first model on.",
            remedy="Begin later with --from.",
        )
    return Prequential(
        models,
        windows=[
            (step.first, step.end) for step in ReplayPlan(solution.name, period, _STEPS[solution.monitoring.window]).steps()
        ],
        holdout_days=maximum_days(solution.training.holdout),
        half_life=arm_settings(solution).half_life,
        metric=solution.training.metric,
    )


def labelled_rows(connection: "duckdb.DuckDBPyConnection", inputs: SolutionInputs, period: Period) -> "pa.Table":
    """All labelled rows of the spine up to the end of `period`, in order of time, with the features as known at prediction."""
    import pyarrow as pa

    spine, column = inputs.solution.spine, quote(inputs.solution.partitions.column)
    if not table_exists(connection, inputs.spine.table):
        raise StackError(
            f"There is no table {inputs.spine.table} yet: nothing was loaded for {inputs.name}.",
            remedy=f"mlops run {inputs.name}",
        )
    answer = connection.execute(f"SELECT min({column}) FROM {lake_name(inputs.spine.table)}").fetchone()
    if answer is None or answer[0] is None or answer[0] >= period.first:
        raise StackError(
            f"{inputs.spine.table} has no rows before {period.first}: there is nothing to train the first model on.",
            remedy="Begin later with --from, or load earlier partitions.",
        )
    frame = inputs.frame(
        first=answer[0],
        end=period.end,
        condition=f"{inputs.is_labelled} AND {quote(spine.label_time)} IS NOT NULL",
        labelled=True,
        snapshot=current_snapshot(connection),
    )
    parts = [connection.execute(f"FROM ({part})").to_arrow_table() for part in frame.built(connection)]
    return pa.concat_tables(parts).sort_by([(spine.prediction_time, "ascending"), (spine.key, "ascending")])
