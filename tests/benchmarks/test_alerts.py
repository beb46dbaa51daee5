"""How far alerts of performance can be believed: of windows with an alert those that fell, and of falls those that were announced.

A version is fitted every four weeks on the training window without its hold-out, as the gates see it, and the windows until the next one are
reported on: once with all their labels, and once by the estimate without any. A fall is announced when either of both alerts. The reports are
kept, since they take minutes; the table of docs/monitoring.md is counted from them.

A window fell where a metric is worse than on the hold-out by an effect that matters, and beyond the chance of the rows of both. The hold-out is
a sample too: without its share of the chance 8 % of the windows of stationary streams fell, in which nothing can fall.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from policy_streams import Rows, hyperplane, sea, streams
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
DRIFTING = ("car loan", "credit cards", "sea", "sea recurring", "hyperplane", "flights abrupt", "elec2", "elec2 without price")
FURTHER = {f"sea stationary {seed}": partial(sea, (8,), "SEA, stationary", weeks=40, seed=seed) for seed in (1, 2, 3)} | {
    f"hyperplane stationary {seed}": partial(hyperplane, 0.0, "hyperplane, stationary", weeks=40, seed=seed) for seed in (1, 2, 3)
}
"""Stationary streams that no policy runs on: one alert in a hundred windows is not measured on two hundred."""
STATIONARY = ("car loan shuffled", "sea stationary", "hyperplane stationary", "flights shuffled", "elec2 shuffled", *FURTHER)
DEFAULTS = Performance()
FALLS_BY_CHANCE = DEFAULTS.false_alarms / 2
"""The probability that any metric of a quiet window counts as a fall: that of a false alarm on all rows."""
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


@dataclass(frozen=True)
class ReportedWindow:
    """The reports of a window with all labels (`known`), and with the estimate alone (`unknown`); `held_out` counts the rows of the hold-out."""

    held_out: int
    known: list[PerformanceRow]
    unknown: list[PerformanceRow]

    @property
    def fell(self) -> bool:
        """Whether any metric is worse by an effect that matters, beyond chance."""
        return any(map(self._is_worse, self.known))

    @property
    def is_announced_by_label(self) -> bool:
        """Whether the report with all labels alerts."""
        return any(row.alert for row in self.known)

    @property
    def is_announced_by_estimate(self) -> bool:
        """Whether the report without any label alerts."""
        return any(row.alert for row in self.unknown)

    def _is_worse(self, row: PerformanceRow) -> bool:
        value, expected, effect, low, high = row.realised, row.expected, row.effect, row.realised_lower, row.realised_upper
        if value is None or expected is None or effect is None or low is None or high is None:
            return False
        better = greater_is_better(row.metric)
        fall, interval = (expected - value, high - value) if better else (value - expected, value - low)
        # A sampling error falls with the root of the rows: that of the hold-out follows from that of the window.
        error = interval / NormalDist().inv_cdf(0.975) * (1 + row.rows / self.held_out) ** 0.5
        return fall > max(effect, NormalDist().inv_cdf(1 - FALLS_BY_CHANCE / len(self.known)) * error)


def reports(rows: Rows) -> Iterator[ReportedWindow]:
    """The reports of each window."""
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
            yield ReportedWindow(len(version.holdout), known, unknown)


@pytest.mark.parametrize("name", [name for name in (*DRIFTING, *STATIONARY) if name in streams(CACHE) | FURTHER])
def test_alerts(name: str) -> None:
    """One stream, with reports that are kept for the table."""
    windows = [asdict(window) for window in reports((streams(CACHE) | FURTHER)[name]())]
    kept(name).parent.mkdir(parents=True, exist_ok=True)
    kept(name).write_text(json.dumps(windows))
    assert windows


def kept(name: str) -> Path:
    """The file of the reports of a stream."""
    return CACHE / "results" / f"alerts-{identity(name)}.json"


def count(names: Sequence[str]) -> np.ndarray:
    """Return of all windows of the streams together: how many there are, fell, and were announced when they fell: by label, by the estimate, by
    either; and how many alerts there are, and of windows that did not fall.
    """
    counted = np.zeros(7, dtype=int)
    for name in names:
        for content in json.loads(kept(name).read_text()):
            known, unknown = ([PerformanceRow(**row) for row in content[kind]] for kind in ("known", "unknown"))
            window = ReportedWindow(content["held_out"], known, unknown)
            fell, label, estimate = window.fell, window.is_announced_by_label, window.is_announced_by_estimate
            either = label or estimate
            counted += [1, fell, fell and label, fell and estimate, fell and either, either, either and not fell]
    return counted


def test_table_of_alerts() -> None:
    """The table of the page, and the goals: most falls are announced, few alerts are wrong, and hardly any where nothing changes."""
    names = [name for name in (*DRIFTING, *STATIONARY) if kept(name).exists()]
    parts = {
        "all drifting": [name for name in names if name in DRIFTING],
        "all stationary": [name for name in names if name in STATIONARY],
    }
    lines = [
        "| stream | windows | fell | announced by labels | by the estimate | by either | windows with an alert | of these did not fall |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, members in ({name: [name] for name in names} | parts).items():
        lines.append(f"| {name} | {' | '.join(map(str, count(members)))} |")
    text, replaced = re.subn(
        r"(<!-- alerts -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n" + "\n".join(lines) + f"\n\n{found[2]}",
        PAGE.read_text(),
        flags=re.S,
    )
    assert replaced == 1
    PAGE.write_text(text)
    _, fell, _, _, announced, alerts, wrong = count(parts["all drifting"])
    assert announced >= 0.8 * fell
    assert wrong <= 0.2 * alerts
    windows, *_, alerts, _ = count(parts["all stationary"])
    assert alerts <= 0.01 * windows
