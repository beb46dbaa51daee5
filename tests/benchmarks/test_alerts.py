"""How far alerts of performance can be believed: of windows with an alert those that fell, and of falls those that were announced.

A version is fitted every four weeks on the training window without its hold-out, as the gates see it, and the windows until the next one are
reported on: once with all their labels, and once by the estimate without any. A window fell where a metric is worse than on the hold-out by an
effect that matters and beyond the chance of its rows. The table of docs/monitoring.md is written from the results of all streams.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from policy_streams import Rows, streams
from test_policies import CACHE, identity

from mlops_assets.ml.evaluation import Evaluation, Resampling, evaluate
from mlops_assets.ml.history import History
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.performance import Limits, Maturity, UsualPerformance, performance_rows
from mlops_assets.ml.performance_estimation import PredictionChunk, estimate_metrics, estimated_metrics
from mlops_assets.ml.reference import WHOLE
from mlops_assets.ml.reference_windows import excess_of, variation_between, window_metrics
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import METRICS, greater_is_better, metric_names
from mlops_assets.schema.monitoring_section import Performance

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"
MEASURED = ("car loan", "car loan shuffled", "credit cards", "flights", "flights shuffled", "elec2", "elec2 shuffled")
DEFAULTS = Performance()
LIMITS = Limits(DEFAULTS.tolerance, {}, DEFAULTS.false_alarms, floors={}, slice_floors={})


@dataclass(frozen=True)
class Version:
    """A version with what it predicts of every row, and the rows of its hold-out."""

    rows: Rows
    predictions: np.ndarray
    holdout: np.ndarray

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the problem."""
        return metric_names(self.rows.problem)

    def scored(self, places: np.ndarray) -> WeightedMetrics:
        """The rows at `places` with their predictions."""
        labels = self.rows.labels[places]
        classes = tuple(range(len(self.rows.classes)))
        return WeightedMetrics(self.rows.problem, labels, self.predictions[places], classes, 0.5)

    def evaluated(self, places: np.ndarray) -> Evaluation:
        """The metrics of the rows at `places` with their intervals."""
        return evaluate(
            problem=self.rows.problem,
            metrics=self.metrics,
            labels=self.rows.labels[places],
            predictions=self.predictions[places],
            training_labels=self.rows.labels[self.holdout],
            classes=tuple(range(len(self.rows.classes))),
            threshold=0.5,
            slices=pa.table({}),
            minimum_slice_rows=200,
            resampling=Resampling(seed=0, slice_metrics=self.metrics),
        )

    def table(self, places: np.ndarray) -> pa.Table:
        """The rows at `places` as NannyML reads them."""
        predicted, labels = self.predictions[places], pa.array(self.rows.labels[places])
        match self.rows.problem:
            case "regression":
                columns: dict[str, Any] = {"value": predicted} | {
                    name: self.rows.features[name].to_numpy()[places] for name in self.numeric
                }
            case "binary_classification":
                columns = {"score": predicted, "predicted_label": (predicted >= 0.5).astype(int)}
            case _:
                columns = {"probabilities": pa.array(list(predicted)), "predicted_label": predicted.argmax(axis=1)}
        return pa.table({**columns, "label": labels})

    @property
    def numeric(self) -> tuple[str, ...]:
        """The features that are numbers."""
        return tuple(name for name in self.rows.features if self.rows.features[name].dtype.kind in "iuf")


def versions(rows: Rows) -> Iterator[tuple[Version, date, list[tuple[date, date]]]]:
    """Each version with its training date and the windows that it predicts."""
    evaluated = rows.evaluation(CACHE)
    models, everything = evaluated._models, np.arange(len(rows.labels))
    for first in evaluated.windows[:: max(rows.period // rows.window_days, 1)]:
        day = first[0]
        holdout = day - timedelta(days=rows.holdout)
        taken, _ = models._rows(History(days=rows.window - rows.holdout), holdout, None)
        predictions = models._learner.fit_predict(taken, None, everything)
        later = [window for window in evaluated.windows if day <= window[0] < day + timedelta(days=rows.period)]
        yield Version(rows, predictions, evaluated._known(holdout, day, day)), day, later


def reports(rows: Rows) -> Iterator[tuple[list[PerformanceRow], list[PerformanceRow]]]:
    """The report of each window with all labels, and with the estimate alone."""
    for version, day, windows in versions(rows):

        def between(start: date, end: date) -> np.ndarray:
            return np.flatnonzero((rows.days >= np.datetime64(start)) & (rows.days < np.datetime64(end)))

        length = timedelta(days=rows.window_days)
        earlier = [day - number * length for number in range(rows.window // rows.window_days, 0, -1)]
        usual_rows = [
            row
            for start in earlier
            if len(places := between(start, start + length))
            for row in window_metrics(str(start), {WHOLE: version.scored(places)}, metrics=version.metrics, seed=0)
        ]
        held = version.scored(version.holdout)
        places = {start: between(start, end) for start, end in windows}
        biased = [metric for metric in version.metrics if METRICS.get(metric).biased_upwards]
        usual = UsualPerformance(
            version.evaluated(version.holdout),
            variation_between(pa.Table.from_pylist(usual_rows), rows.holdout / rows.window_days),
            {(WHOLE, metric, len(part)): excess_of(held, metric, len(part), 0) for part in places.values() for metric in biased},
            {},
        )
        estimates = estimate_metrics(
            rows.problem,
            reference=version.table(version.holdout),
            label="label",
            chunks=[PredictionChunk((str(start), WHOLE), version.table(part)) for start, part in places.items()],
            schema=FeatureSchema(numeric=version.numeric, categorical=()),
            classes=tuple(range(len(rows.classes))),
            metrics=estimated_metrics(rows.problem, rows.metric),
        )
        for start, part in places.items():
            known, unknown = (
                performance_rows(
                    str(start),
                    metrics=version.metrics,
                    maturity={WHOLE: Maturity(len(part), len(part) * complete, complete)},
                    estimates={
                        (WHOLE, metric): value for ((chunk, _), metric), value in estimates.items() if chunk == str(start)
                    },
                    realised=version.evaluated(part) if complete else None,
                    usual=usual,
                    limits=LIMITS,
                )
                for complete in (True, False)
            )
            yield known, unknown


def fell(row: PerformanceRow, metrics: int) -> bool:
    """Whether the realised metric is worse by an effect that matters, beyond chance at 5 % for all `metrics` together."""
    if (
        row.realised is None
        or row.expected is None
        or row.effect is None
        or row.realised_lower is None
        or row.realised_upper is None
    ):
        return False
    wider = NormalDist().inv_cdf(1 - 0.025 / metrics) / NormalDist().inv_cdf(0.975)
    if greater_is_better(row.metric):
        fall, chance = row.expected - row.realised, row.realised_upper - row.realised
    else:
        fall, chance = row.realised - row.expected, row.realised - row.realised_lower
    return fall > max(row.effect, wider * chance)


@pytest.mark.parametrize("name", [name for name in MEASURED if name in streams(CACHE)])
def test_alerts(name: str) -> None:
    """One stream, with results that are kept for the table."""
    counted = [
        [any(fell(row, len(known)) for row in known), any(row.alert for row in known), any(row.alert for row in unknown)]
        for known, unknown in reports(streams(CACHE)[name]())
    ]
    falls, by_label, by_estimate = np.array(counted).T
    result = {"windows": len(falls), "falls": int(falls.sum())}
    for kind, alerts in (("label", by_label), ("estimate", by_estimate)):
        result |= {kind: int(alerts.sum()), f"{kind} right": int((alerts & falls).sum())}
    sys.stdout.write(f"\n{name}: {json.dumps(result)}\n")
    (CACHE / "results").mkdir(parents=True, exist_ok=True)
    (CACHE / "results" / f"alerts-{identity(name)}.json").write_text(json.dumps(result))


def test_table_of_alerts() -> None:
    """The table of the page, from the results of all streams."""
    lines = [
        "| stream | windows | fell | alerts by labels, of these fell | alerts by the estimate, of these fell |",
        "|---|---|---|---|---|",
    ]
    for name in MEASURED:
        path = CACHE / "results" / f"alerts-{identity(name)}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        lines.append(
            f"| {name} | {result['windows']} | {result['falls']} | {result['label']}, {result['label right']} | "
            f"{result['estimate']}, {result['estimate right']} |"
        )
    text, count = re.subn(
        r"(<!-- alerts -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n" + "\n".join(lines) + f"\n\n{found[2]}",
        PAGE.read_text(),
        flags=re.S,
    )
    assert count == 1
    PAGE.write_text(text)
