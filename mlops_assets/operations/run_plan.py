"""The plan of `mlops run`: which days of a solution are loaded, trained on, predicted and monitored, and the runs that do it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial

from mlops_assets.clients.asset_state import AssetState
from mlops_assets.clients.champion import registered_champion
from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG
from mlops_assets.components.stages import stages, stages_of
from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import DRIFT_REPORT, PREDICTIONS, RAW_SCHEMA, TRAINING_DATASET
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import Settings
from mlops_assets.operations.partition_windows import PartitionCalendar, PartitionWindow
from mlops_assets.operations.solutions import configuration_errors, declared_solution
from mlops_assets.operations.stage_runs import StageRun, data_assets, data_runs
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.stage import Job


@dataclass(frozen=True)
class RunRequest:
    """What is asked for: a solution, the first day of its data, and the first and last day that are predicted and monitored.

    None of `loaded_from` and `last`: all there is; of `first`: what `plan_run` chooses. `trains`: a model is trained for the first
    predicted day; None: only where no champion could predict.
    """

    solution: str
    loaded_from: date | None = None
    first: date | None = None
    last: date | None = None
    trains: bool | None = None


@dataclass(frozen=True)
class RunPlan:
    """The runs of a request in their order, its predicted partitions and monitoring windows, and the training date of the model."""

    solution: str
    training_date: str
    partitions: tuple[PartitionWindow, ...]
    windows: tuple[str, ...]
    stages: tuple[StageRun, ...]

    @property
    def last(self) -> date:
        """Last predicted day."""
        return self.partitions[-1].last


def plan_run(settings: Settings, client: DagsterClient, request: RunRequest) -> RunPlan:
    """Choose the partitions of `request`, and the runs that load, train, predict and monitor them.

    Without a first day: the first that was predicted already; before any was, as many days at the end as the hold-out has, at least one
    monitoring window. Raises StackError when the solution was not loaded or has no data in these days.
    """
    name, assets, calendar = request.solution, client.assets(), PartitionCalendar(client)
    solution = declared_solution(name)
    require_loaded(assets, solution)
    champion = patiently(partial(registered_champion, settings, name))
    data = data_assets(assets, f"{name}/{TRAINING_DATASET}")
    available = available_partitions(calendar, assets, solution)
    if request.last is not None:
        available = [window for window in available if window.last <= request.last]
    windows = calendar.windows(f"{name}/{DRIFT_REPORT}")
    first = request.first or _first_predicted(assets, solution, available, windows)
    predicted = [window for window in available if first <= window.first]
    if not predicted:
        span = f"{available[0].first} to {available[-1].last}" if available else "none"
        raise StackError(f"{name} has no data in these days: there are partitions of {span}.", remedy="Choose other days.")
    training_date = champion.tags[TRAINING_DATE_TAG] if champion and not request.trains else predicted[0].key
    monitored = [window.key for window in windows if predicted[0].first <= window.first and window.last <= predicted[-1].last]
    # Nobody can look at a table as it was: only the days that are predicted are snapshots.
    loaded_from = request.loaded_from if solution.spine.has_time else predicted[0].first
    runs = data_runs(calendar, assets, data, first=loaded_from, last=predicted[-1].last, name="data and features")
    if champion is None or request.trains:
        runs.append(_stage(solution, "training", training_date, training_date))
    runs.append(_stage(solution, "scoring", predicted[0].key, predicted[-1].key))
    if monitored:
        runs.append(_stage(solution, "monitoring", monitored[0], monitored[-1]))
    return RunPlan(name, training_date, tuple(predicted), tuple(monitored), tuple(runs))


def is_loaded(assets: Mapping[str, AssetState], solution: Solution) -> bool:
    """Whether the code location has every stage of `solution`."""
    return not _missing_assets(assets, solution)


def require_loaded(assets: Mapping[str, AssetState], solution: Solution) -> None:
    """Raise StackError, with what is wrong in its file, unless the code location has every stage of `solution`."""
    if missing := _missing_assets(assets, solution):
        errors = configuration_errors(assets)
        reason = "\n".join(errors) or f"The code location has no asset {missing[0]}."
        raise StackError(reason, remedy="Mend the file, then: mlops reload" if errors else "mlops logs code-location")


def _missing_assets(assets: Mapping[str, AssetState], solution: Solution) -> list[str]:
    return [key for stage in stages(solution) if stage.job and (key := f"{solution.name}/{stage.name}") not in assets]


def raw_tables(data: set[str]) -> list[str]:
    """The raw tables among the assets `data`."""
    return sorted(key for key in data if key.startswith(f"{RAW_SCHEMA}/"))


def available_partitions(
    calendar: PartitionCalendar, assets: Mapping[str, AssetState], solution: Solution
) -> list[PartitionWindow]:
    """The partitions of `solution` that end no later than each of its partitioned raw tables."""
    data = data_assets(assets, f"{solution.name}/{TRAINING_DATASET}")
    last = calendar.last([key for key in raw_tables(data) if assets[key].partitioned])
    windows = calendar.windows(f"{solution.name}/{PREDICTIONS}")
    return [window for window in windows if last is None or window.last <= last]


def _first_predicted(
    assets: Mapping[str, AssetState], solution: Solution, available: list[PartitionWindow], windows: list[PartitionWindow]
) -> date:
    """The first day to predict where none is asked for: without time the newest snapshot."""
    if not solution.spine.has_time:
        return available[-1].first if available else date.max
    if ranges := assets[f"{solution.name}/{PREDICTIONS}"].ranges:
        return date.fromisoformat(min(start for start, _ in ranges))
    if not available:
        return date.max
    end = available[-1].end
    whole = [window.first for window in windows if window.end <= end]
    latest = min(subtract_duration(end, solution.training.holdout), *whole[-1:])
    return max((window.first for window in available if window.first <= latest), default=available[-1].first)


def _stage(solution: Solution, job: Job, first: str, last: str) -> StageRun:
    return StageRun(job, tuple(f"{solution.name}/{name}" for name in stages_of(job, solution)), first, last)
