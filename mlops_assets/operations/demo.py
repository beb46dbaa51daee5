"""`mlops demo`: the main job end to end through the running stack, and a summary of what came out.

It launches the runs that a person would launch in the Dagster UI: data and features, training, scoring, monitoring.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml
from dateutil.relativedelta import relativedelta
from pydantic import ValidationError

from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.operations.solutions import configuration_errors, declared_solution
from mlops_assets.operations.stage_runs import StageRun, data_assets
from mlops_assets.schema.yaml_model import YamlModel


@dataclass(frozen=True)
class DemoPlan:
    """Which solution, from which day, and how many months; the last one is predicted. Then time goes on to `replay_to`, if it does."""

    solution: str
    start: date
    months: int
    replay_to: date | None

    @classmethod
    def read(cls, months: int | None) -> "DemoPlan":
        """The plan in `defs/demo.yaml`; with another number of `months`, if given, and then without the replay.

        Raises StackError when there are fewer than 2 months, or the file is missing or says what is not understood.
        """
        declared = _read_declared(current_project().demo_file)
        plan = cls(
            solution=declared.solution,
            start=declared.start,
            months=months or declared.months,
            replay_to=None if months else declared.replay_to,
        )
        if plan.months < 2:
            raise StackError("The demo needs a month to train on and a month to predict.", remedy="mlops demo --months 2")
        return plan

    @property
    def training_date(self) -> date:
        """First day of the predicted month: what the model may know ends here."""
        return self.start + relativedelta(months=self.months - 1)

    @property
    def last(self) -> date:
        """Last day of data."""
        return self.start + relativedelta(months=self.months) - timedelta(days=1)


class _Declared(YamlModel):
    """The content of `defs/demo.yaml`."""

    solution: str
    start: date
    months: int
    replay_to: date | None = None


def _read_declared(file: Path) -> _Declared:
    remedy = "It names a solution, a day `start`, a number of `months` and, if time goes on then, a day `replay_to`."
    try:
        return _Declared.model_validate(yaml.safe_load(file.read_text()))
    except FileNotFoundError as error:
        raise StackError(f"There is no {file}, which says what the demo shows.", remedy=f"Write it. {remedy}") from error
    except yaml.YAMLError as error:
        raise StackError(f"{file} is no YAML: {error}", remedy=remedy) from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors())
        raise StackError(f"{file}: {problems}", remedy=remedy) from error


def demo_stages(client: DagsterClient, plan: DemoPlan) -> list[StageRun]:
    """The four runs of the demo."""
    # Here, since the declarations load Dagster.
    from mlops_assets.components import stages as declared

    assets, solution = client.assets(), declared_solution(plan.solution)
    keys = {stage.name: f"{plan.solution}/{stage.name}" for stage in declared.stages(solution) if stage.job}
    if missing := [key for key in keys.values() if key not in assets]:
        errors = configuration_errors(assets)
        reason = "\n".join(errors) or f"The code location has no asset {missing[0]}."
        raise StackError(reason, remedy="Mend the file, then: mlops reload" if errors else "mlops logs code-location")
    training_date, last = plan.training_date.isoformat(), plan.last.isoformat()
    upstream = tuple(sorted(data_assets(assets, keys["training_dataset"])))
    windows = list(_whole_windows(client.partition_keys(keys["drift_report"]), plan))
    found = [
        StageRun("data and features", upstream, plan.start.isoformat(), last),
        StageRun(
            "training", tuple(keys[name] for name in declared.stages_of("training", solution)), training_date, training_date
        ),
        StageRun("scoring", tuple(keys[name] for name in declared.stages_of("scoring", solution)), training_date, last),
    ]
    if windows:
        found.append(
            StageRun(
                "monitoring", tuple(keys[name] for name in declared.stages_of("monitoring", solution)), windows[0], windows[-1]
            )
        )
    return found


@dataclass(frozen=True)
class DemoSummary:
    """What the demo shows at the end. `metrics` are the evaluation's and the realised ones, each beside the naive baseline's."""

    version: int
    rows: dict[str, int]
    metrics: dict[str, dict[str, float]]
    drift: list[dict[str, Any]]
    reports: list[str]
    urls: dict[str, str]


def summarise(settings: Settings, client: DagsterClient, plan: DemoPlan, done: Sequence[StageRun]) -> DemoSummary:
    """Read the results from the lake and from Dagster's metadata."""
    from mlops_assets.operations.query import run_query

    solution, last = plan.solution, plan.last.isoformat()
    evaluation = client.metadata(f"{solution}/evaluation", plan.training_date.isoformat())
    outcomes = client.metadata(f"{solution}/outcomes", last)
    windows = [
        key
        for stage in done
        if stage.name == "monitoring"
        for key in client.partition_keys(f"{solution}/drift_report")
        if stage.first <= key <= stage.last
    ]
    return DemoSummary(
        version=int(evaluation["model_version"]),
        rows=_row_counts(settings, done[0], solution),
        metrics={"hold-out": _numbers(evaluation), "realised": _numbers(outcomes)},
        drift=_drift(run_query, settings, solution, windows),
        reports=[str(client.metadata(f"{solution}/monitoring_report", key).get("report", "")) for key in windows],
        urls={
            "Dagster lineage": f"{settings.dagster_url}/asset-groups",
            "Model in MLflow": f"{settings.mlflow_url}/#/models/{solution}",
        },
    )


def _row_counts(settings: Settings, data: StageRun, solution: str) -> dict[str, int]:
    from mlops_assets.operations.query import run_query

    tables = [key.replace("/", ".") for key in data.assets if key.startswith("raw/")]
    tables += [f"{solution}.{name}" for name in ("spine", "training_dataset", "predictions", "outcomes")]
    counts = " UNION ALL ".join(f"SELECT '{table}' AS name, count(*) AS n FROM {table}" for table in tables)
    return dict(run_query(settings, counts)[1])


def _drift(run_query: Callable[..., Any], settings: Settings, solution: str, windows: Sequence[str]) -> list[dict[str, Any]]:
    """One row a window: how many features drifted and which moved most, and the selection metric as estimated, realised and on the hold-out."""
    if not windows:
        return []
    metric = declared_solution(solution).training.metric
    between = f"window_start BETWEEN '{windows[0]}' AND '{windows[-1]}' AND slice IS NULL"
    columns, rows = run_query(
        settings,
        "WITH features AS (SELECT window_start, feature, bool_or(alert) AS drifted, max(effect) AS effect "
        f"FROM {solution}.drift_report WHERE kind = 'feature' AND {between} GROUP BY ALL), "
        "drift AS (SELECT window_start, count(*) FILTER (WHERE drifted) AS drifted, count(*) AS features, "
        "list(feature ORDER BY effect DESC) FILTER (WHERE drifted)[:3] AS most FROM features GROUP BY 1) "
        'SELECT CAST(window_start AS VARCHAR) AS "window", d.drifted, d.features, d.most, p.metric, p.estimated, p.realised, p.reference, '
        f"p.complete, p.alert FROM drift d JOIN {solution}.performance_report p USING (window_start) "
        f"WHERE p.metric = '{metric}' AND {between} ORDER BY 1, p.model_version",
    )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _numbers(metadata: dict[str, Any]) -> dict[str, float]:
    """The metrics of an asset that evaluates, then those of its naive baseline with `baseline_` before the name."""
    metrics = {name: float(value) for name, value in metadata.items() if isinstance(value, float)}
    return metrics | {f"baseline_{name}": value for name, value in metadata.get("naive_baseline", {}).items()}


def _whole_windows(keys: Sequence[str], plan: DemoPlan) -> Iterator[str]:
    """Monitoring windows that lie in the predicted month."""
    starts = [date.fromisoformat(key) for key in keys]
    for previous, start, following in zip([None, *starts], starts, [*starts[1:], None], strict=False):
        if following is None:
            # The last window is as long as the one before it, in months or years where both begin on the same day.
            length = relativedelta(start, previous) if previous and start.day == previous.day else start - (previous or start)
            following = start + length
        if plan.training_date <= start and following <= plan.last + timedelta(days=1):
            yield start.isoformat()
