"""The model diff of a change: the configuration of before and the changed one, trained on the same days and judged on the windows after.

Both are fitted on all labels that were known when the first window began. No search is run: an estimator has the parameters of its YAML.
The version in production is judged on the same rows where it has seen none of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.champion import registered_champion
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG
from mlops_assets.clients.trusted_types import RegistryError
from mlops_assets.core.errors import AwayError
from mlops_assets.core.settings import Settings
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.operations.review.build_plan import ComparedWindows
from mlops_assets.operations.review.judged_models import JudgedModel, common_rows, judge_model
from mlops_assets.operations.review.scratch_lake import ScratchLake
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.bundle import BundleError
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import read_bundle
from mlops_assets.training.candidate_evaluation import MINIMUM_SLICE_ROWS, blocks_by_day, evaluated_predictions

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.comparison import MetricDifference
    from mlops_assets.ml.evaluation import Resampling
    from mlops_assets.ml.weighted_metrics import WeightedMetrics

WINDOW = "window"
"""The windows are shown like the slices of a column."""


@dataclass(frozen=True)
class MetricChange:
    """A metric before and after, with the interval of the paired difference (None where there are too few rows), and a verdict in words."""

    name: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class SliceChange:
    """The metric of the solution on the rows where `column` has `value`."""

    column: str
    value: str
    rows: int
    metric: MetricChange


@dataclass(frozen=True)
class ModelReview:
    """The changed configuration of a solution beside that of before; both were trained for the date `trained`, on so many `training_rows`.

    `metrics` and `slices` are of the `rows` that both predict, by the labels of after: those that are `relabelled` had another one before.
    `champion` are the metrics of the version in production and of the changed configuration; without them `champion_obstacle` is the reason.
    With an `obstacle` nothing was trained. `problems` are metrics that are worse than the gate `against_champion` lets pass.
    """

    solution: str
    trained: date | None = None
    end: date | None = None
    training_rows: tuple[int, int] = (0, 0)
    rows: int = 0
    relabelled: int = 0
    metric: str = ""
    metrics: tuple[MetricChange, ...] = ()
    slices: tuple[SliceChange, ...] = ()
    champion: tuple[MetricChange, ...] = ()
    champion_label: str = ""
    champion_obstacle: str = ""
    obstacle: str = ""
    problems: tuple[str, ...] = ()


def review_model(
    scratch: ScratchLake, settings: Settings, before: SolutionInputs, after: SolutionInputs, windows: ComparedWindows
) -> ModelReview:
    """Train both configurations for the first day of `windows`, and compare them, and the champion of `settings`, on the days from it on."""
    if not (before.solution.spine.has_time and after.solution.spine.has_time):
        return ModelReview(after.name, obstacle="a table without time has no rows after those of a training")
    if before.solution.problem != after.solution.problem:
        return ModelReview(after.name, obstacle=f"it is another problem: {before.solution.problem} before")
    try:
        with scratch.lake.connect(read_only=True) as connection:
            first, second = (
                judge_model(connection, inputs, windows, snapshot)
                for inputs, snapshot in ((before, scratch.snapshot), (after, current_snapshot(connection)))
            )
        if set(first.classes) != set(second.classes):
            return ModelReview(after.name, obstacle="the labels of before and after are of other classes")
        return _compare(settings, after, windows, *common_rows(before, after, first, second))
    except ValueError as error:
        return ModelReview(after.name, obstacle=str(error))


def _compare(
    settings: Settings, inputs: SolutionInputs, windows: ComparedWindows, before: JudgedModel, after: JudgedModel
) -> ModelReview:
    from mlops_assets.ml.comparison import compare_rows
    from mlops_assets.ml.evaluation import Resampling
    from mlops_assets.schema.problem import label_array

    solution = inputs.solution
    if not after.rows.num_rows:
        return ModelReview(inputs.name, obstacle="before and after have no row with the same key")
    labels = label_array(after.rows.column(solution.spine.label), solution.problem)
    theirs, ours = (_metrics(solution, judged, labels) for judged in (before, after))
    resampling = Resampling(seed=solution.training.seed, slice_metrics=(), blocks=blocks_by_day(solution, after.rows))
    differences = compare_rows(ours, theirs, names=solution.metrics, resampling=resampling)
    # A label of another name is another label.
    former = before.rows.column(solution.spine.label) if solution.spine.label in before.rows.column_names else None
    relabelled = len(labels) if former is None else int((label_array(former, solution.problem) != labels).sum())
    metric = solution.training.metric
    tolerances = solution.gates.against_champion or {metric: differences[metric].negligible_loss}
    problems = [
        f"{solution.name}: {name} {format_metric(differences[name].theirs)} → {format_metric(differences[name].ours)}"
        for name, tolerance in tolerances.items()
        if differences[name].is_worse(tolerance)
    ]
    champion, label, obstacle = _champion(settings, solution, windows, before.rows, ours, resampling)
    return ModelReview(
        solution=inputs.name,
        trained=windows.first,
        end=windows.end,
        training_rows=(before.training_rows, after.training_rows),
        rows=len(labels),
        relabelled=relabelled,
        metric=metric,
        metrics=tuple(_change(differences[name]) for name in solution.metrics),
        slices=tuple(_slices(solution, windows, after.rows, ours, theirs, resampling)),
        champion=champion,
        champion_label=label,
        champion_obstacle=obstacle,
        # Of another label it is another problem that is solved.
        problems=() if relabelled else tuple(problems),
    )


def _metrics(solution: Solution, judged: JudgedModel, labels: "np.ndarray") -> "WeightedMetrics":
    from mlops_assets.ml.evaluation import normalize_predictions
    from mlops_assets.ml.weighted_metrics import WeightedMetrics

    predictions = normalize_predictions(solution.problem, judged.predictions)
    threshold = 0.5 if judged.threshold is None else judged.threshold
    return WeightedMetrics(solution.problem, labels, predictions, judged.classes, threshold)


def _slices(
    solution: Solution,
    windows: ComparedWindows,
    rows: "pa.Table",
    ours: "WeightedMetrics",
    theirs: "WeightedMetrics",
    resampling: "Resampling",
) -> Iterator[SliceChange]:
    """The metric by window, and by each value of the slices that has enough rows."""
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.bootstrap import number_blocks
    from mlops_assets.ml.comparison import compare_rows
    from mlops_assets.ml.evaluation import Resampling, rows_by_value

    name = solution.training.metric
    days = rows.column(solution.partitions.column).to_numpy().astype("datetime64[D]")
    starts = np.array(windows.starts, dtype="datetime64[D]")
    columns = {WINDOW: pa.chunked_array([starts[np.searchsorted(starts, days, side="right") - 1].astype(str).tolist()])}
    columns |= {column: rows.column(column) for column in solution.gates.slices if column in rows.column_names}
    for column, values in columns.items():
        parts = rows_by_value(values)
        for value in sorted(parts) if column == WINDOW else parts:
            positions = parts[value]
            if column != WINDOW and len(positions) < MINIMUM_SLICE_ROWS:
                continue
            blocks = None if resampling.blocks is None else number_blocks(resampling.blocks[positions])
            of_part = Resampling(seed=resampling.seed, slice_metrics=(), blocks=blocks)
            compared = compare_rows(ours.part(positions), theirs.part(positions), names=(name,), resampling=of_part)
            yield SliceChange(column, value, len(positions), _change(compared[name]))


def _champion(
    settings: Settings,
    solution: Solution,
    windows: ComparedWindows,
    rows: "pa.Table",
    ours: "WeightedMetrics",
    resampling: "Resampling",
) -> tuple[tuple[MetricChange, ...], str, str]:
    """The metrics of the version in production beside ours, what it is called, and why there are none."""
    from mlops_assets.ml.comparison import compare_rows

    try:
        champion = registered_champion(settings, solution.name)
        if champion is None:
            return (), "", "there is no champion"
        label, trained = f"version {champion.version}", date.fromisoformat(champion.tags[TRAINING_DATE_TAG])
        if trained > windows.first:
            return (), label, f"{label} was trained for {trained}, on rows of these windows"
        bundle = read_bundle(ModelRegistry.from_settings(settings), settings, champion)
    except (AwayError, EvidenceError, BundleError, RegistryError) as error:
        return (), "", str(error)
    if lacking := [name for name in bundle.contract.feature_schema.names if name not in rows.column_names]:
        return (), label, f"{label} reads {', '.join(lacking)}, which the revision before does not use"
    if set(bundle.contract.classes) != set(ours.classes):
        return (), label, f"{label} knows other classes"
    theirs = evaluated_predictions(solution, bundle.contract, bundle.score(rows), ours.labels)
    compared = compare_rows(ours, theirs, names=solution.metrics, resampling=resampling)
    return tuple(_change(compared[name]) for name in solution.metrics), label, ""


def format_metric(value: float | None) -> str:
    """Return a metric as the report shows it."""
    return "not defined" if value is None else f"{value:.4f}"


def _change(difference: "MetricDifference") -> MetricChange:
    interval = difference.interval
    verdict = "no difference"
    if difference.is_better:
        verdict = "better"
    elif difference.loss is not None and difference.is_worse(0.0):
        verdict = "worse"
    return MetricChange(
        name=difference.metric,
        before=difference.theirs,
        after=difference.ours,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        verdict=verdict,
    )
