"""Streams of labelled rows on which policies of retraining are compared. No benchmarks here.

Real ones: the flights of 2013 with the features of the bundled solutions, the data sets inside NannyML, and the electricity market where
`MLOPS_ELEC2` names elec2.csv.gz, which is not part of the project. Synthetic ones: SEA (Street and Kim, "A streaming ensemble
algorithm", KDD 2001) and the rotating hyperplane (Hulten, Spencer and Domingos, "Mining time-changing data streams", KDD 2001).
Controls have the rows of others in random order, so that nothing changes.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from flights_frame import bundled_inputs, flights_rows

from mlops_assets.ml.changed_relation import ChangeKind, change_labels, changed_share
from mlops_assets.ml.history import History
from mlops_assets.ml.policy_comparison import ArmSettings
from mlops_assets.ml.prequential import Prequential, equal_windows
from mlops_assets.ml.shared_fits import Models, Stream
from mlops_assets.schema.problem import Problem

ITERATIONS = 40
EARLIER = 100_000
"""Rows from before the window, as where a solution does not say."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Labelled rows in order of time, and how they are looked at: in days, the training window, the hold-out, windows and the first day.

    Text columns of `features` are categories. Labels of several classes are positions.
    """

    name: str
    problem: Problem
    metric: str
    features: pd.DataFrame
    labels: np.ndarray
    days: np.ndarray
    known: np.ndarray
    first: date
    window: int
    holdout: int = 14
    window_days: int = 7
    maximum_age: int | None = 180
    cooldown: int = 7
    classes: Sequence[int | str] = ()
    period: int = 28
    drifts: bool = True

    @property
    def settings(self) -> ArmSettings:
        """What a solution without any section of its own has, but for the window and what these rows need."""
        return ArmSettings(
            window=self.window,
            histories=(
                History(days=self.window, earlier=EARLIER),
                History(days=self.window, half_life=self.window // 3),
            ),
            period=self.period,
            cooldown=self.cooldown,
            maximum_age=self.maximum_age,
            minimum_new_rows=0,
        )

    def evaluation(self, cache: Path) -> Prequential:
        """Return the windows of these rows, with fits that are kept in `cache`."""
        stream = Stream(self.problem, self.days, self.known, self.labels, self.classes)
        content = hashlib.sha256(pd.util.hash_pandas_object(self.features, index=False).to_numpy().tobytes())
        for array in (self.labels, self.days.astype(int), self.known.astype(int)):
            content.update(np.ascontiguousarray(array).tobytes())
        models = Models(
            stream,
            Trees(self.features, self.labels, self.problem, len(self.classes)),
            squared=self.metric != "mean_absolute_error",
            folder=cache / "fits",
            identity=f"{content.hexdigest()} {ITERATIONS}",
        )
        return Prequential(
            models,
            windows=equal_windows(stream, self.first, self.window_days),
            holdout_days=self.holdout,
            half_life=self.settings.half_life,
            metric=self.metric,
        )

    def shuffled(self, seed: int = 0) -> "Rows":
        """Return the same rows in random order."""
        order = np.random.default_rng(seed).permutation(len(self.labels))
        features = self.features.iloc[order].reset_index(drop=True)
        return replace(self, name=f"{self.name}, shuffled", features=features, labels=self.labels[order], drifts=False)

    def every(self, step: int) -> "Rows":
        """Return every `step`-th row."""
        return replace(
            self,
            features=self.features.iloc[::step].reset_index(drop=True),
            labels=self.labels[::step],
            days=self.days[::step],
            known=self.known[::step],
        )

    def changed(self, kind: ChangeKind, name: str, chosen: np.ndarray, first: date) -> "Rows":
        """Return the rows, in which the relation of those `chosen` changes from `first` on."""
        ages = (self.days - np.datetime64(first)).astype(int)
        shares = changed_share(kind, ages, int(ages.max()) + 1)
        labels = change_labels(self.problem, self.labels, shares * chosen, classes=len(self.classes) or 2)
        return replace(self, name=name, labels=labels)


@dataclass
class Trees:
    """Boosted trees of a few iterations."""

    features: pd.DataFrame
    labels: np.ndarray
    problem: Problem
    classes: int
    _matrix: np.ndarray | None = field(default=None, init=False)

    def fit_predict(self, rows: np.ndarray, weights: np.ndarray | None, later: np.ndarray) -> np.ndarray:
        """Fit on `rows`, and predict `later`, in one thread: several wait for each other longer than they compute."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            return self._fit_predict(rows, weights, later)

    def _fit_predict(self, rows: np.ndarray, weights: np.ndarray | None, later: np.ndarray) -> np.ndarray:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        categories = [not pd.api.types.is_numeric_dtype(kind) for kind in self.features.dtypes]
        if self._matrix is None:
            columns = [
                np.minimum(pd.factorize(values)[0], 254) if text else values
                for (_, values), text in zip(self.features.items(), categories, strict=True)
            ]
            self._matrix = np.column_stack([np.asarray(values, dtype=float) for values in columns])
        options = {"max_iter": ITERATIONS, "early_stopping": False, "random_state": 0, "categorical_features": categories}
        if self.problem == "regression":
            regressor = HistGradientBoostingRegressor(loss="absolute_error", **options)
            return regressor.fit(self._matrix[rows], self.labels[rows], weights).predict(self._matrix[later])
        classifier = HistGradientBoostingClassifier(**options).fit(self._matrix[rows], self.labels[rows], weights)
        predicted = classifier.predict_proba(self._matrix[later])
        if self.problem == "binary_classification":
            return predicted[:, 1]
        aligned = np.zeros((len(later), self.classes))
        aligned[:, classifier.classes_] = predicted
        return aligned


def sea(thresholds: Sequence[float], name: str, *, weeks: int, seed: int = 0) -> Rows:
    """Return SEA: three features, of which the sum of two exceeds a threshold; a tenth of the labels is wrong.

    Each threshold holds equally long.
    """
    random, count = np.random.default_rng(seed), weeks * 7 * 60
    features = random.uniform(0, 10, size=(count, 3))
    held = np.repeat(thresholds, -(-count // len(thresholds)))[:count]
    labels = (features[:, 0] + features[:, 1] <= held) != (random.random(count) < 0.1)
    return _synthetic(name, features, labels, drifts=len(set(thresholds)) > 1)


def hyperplane(turn: float, name: str, *, weeks: int, seed: int = 0) -> Rows:
    """Return the hyperplane of ten features, of which the weights of five move by `turn` a week, some up and some down; 5 % are wrong."""
    random, count = np.random.default_rng(seed), weeks * 7 * 60
    features, weights = random.uniform(size=(count, 10)), random.uniform(size=10)
    moves = np.concatenate([random.choice([-1.0, 1.0], 5), np.zeros(5)]) * turn
    moved = weights + np.arange(count)[:, None] / (7 * 60) * moves
    labels = ((features - 0.5) * moved).sum(axis=1) > 0
    return _synthetic(name, features, labels != (random.random(count) < 0.05), drifts=turn != 0)


def _synthetic(name: str, features: np.ndarray, labels: np.ndarray, *, drifts: bool) -> Rows:
    days = np.datetime64("2024-01-01") + np.arange(len(labels)) // 60
    return Rows(
        name=name,
        problem="binary_classification",
        metric="roc_auc",
        features=pd.DataFrame(features).add_prefix("x"),
        labels=labels.astype(int),
        days=days,
        known=days + 1,
        first=date(2024, 1, 1) + timedelta(weeks=10),
        window=70,
        classes=(0, 1),
        drifts=drifts,
    )


def _days(times: pd.Series) -> np.ndarray:
    return times.to_numpy().astype("datetime64[D]")


def _nannyml(name: str) -> Path:
    spec = find_spec("nannyml")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


def car_loan() -> Rows:
    """Return NannyML's car loans: the relation changes on 2019-04-01. A label is known a week later."""
    reference = pd.read_csv(_nannyml("synthetic_car_loan_reference.csv"), parse_dates=["timestamp"])
    analysis = pd.read_csv(_nannyml("synthetic_car_loan_analysis.csv"), parse_dates=["timestamp"])
    target = pd.read_csv(_nannyml("synthetic_car_loan_analysis_target.csv"))
    rows = pd.concat([reference, analysis.merge(target, on="id")]).sort_values("timestamp", kind="stable").reset_index(drop=True)
    days = _days(rows["timestamp"])
    features = rows.drop(columns=["id", "timestamp", "repaid", "y_pred", "y_pred_proba"])
    return Rows(
        name="car loan",
        problem="binary_classification",
        metric="roc_auc",
        features=features.assign(repaid_loan_on_prev_car=features["repaid_loan_on_prev_car"].astype(str)),
        labels=rows["repaid"].to_numpy().astype(int),
        days=days,
        known=days + 8,
        first=date(2018, 10, 1),
        window=180,
        classes=(0, 1),
    )


def credit_cards() -> Rows:
    """Return NannyML's multiclass data: which of three cards a customer takes."""
    reference, analysis = (
        pd.read_csv(_nannyml(f"mc_{name}.csv"), parse_dates=["timestamp"]) for name in ("reference", "analysis")
    )
    if "y_true" not in analysis:
        analysis = analysis.merge(
            pd.read_csv(_nannyml("mc_analysis_gt.csv")), left_index=True, right_index=True, suffixes=("", "_")
        )
    rows = pd.concat([reference, analysis]).sort_values("timestamp", kind="stable").reset_index(drop=True)
    days, (labels, classes) = _days(rows["timestamp"]), pd.factorize(rows["y_true"], sort=True)
    dropped = [name for name in rows if name.startswith(("y_", "id")) or name == "timestamp"]
    features = rows.drop(columns=dropped)
    return Rows(
        name="credit cards",
        problem="multiclass_classification",
        metric="log_loss",
        features=features.assign(is_customer=features["is_customer"].astype(str)),
        labels=labels,
        days=days,
        known=days + 1,
        first=days.min().astype(object) + timedelta(days=70),
        window=70,
        classes=tuple(classes),
    )


def car_prices() -> Rows:
    """Return NannyML's regression: prices of used cars."""
    reference = pd.read_csv(_nannyml("regression_synthetic_reference.csv"), parse_dates=["timestamp"])
    analysis = pd.read_csv(_nannyml("regression_synthetic_analysis.csv"), parse_dates=["timestamp"])
    analysis["y_true"] = pd.read_csv(_nannyml("regression_synthetic_analysis_targets.csv"))["y_true"]
    rows = pd.concat([reference, analysis]).sort_values("timestamp", kind="stable").reset_index(drop=True)
    days = _days(rows["timestamp"])
    # Seven weeks in all: days take the place of weeks.
    return Rows(
        name="car prices",
        problem="regression",
        metric="mean_absolute_error",
        features=rows.drop(columns=[name for name in rows if name.startswith("y_") or name in ("id", "timestamp")]),
        labels=rows["y_true"].to_numpy(float),
        days=days,
        known=days + 1,
        first=days.min().astype(object) + timedelta(days=12),
        window=12,
        holdout=3,
        window_days=1,
        period=4,
        cooldown=1,
        maximum_age=30,
    )


def census() -> Rows:
    """Return the US census: employment by year."""
    parts = [pd.read_parquet(_nannyml(f"employment_MA_{name}.pq")) for name in ("reference", "analysis", "analysis_target")]
    rows = (
        pd.concat([parts[0], parts[1].merge(parts[2], on="id")]).sample(frac=1, random_state=0).sort_values("year", kind="stable")
    )
    rows = rows.reset_index(drop=True)
    days = rows["year"].map(lambda year: np.datetime64(f"{year}-12-31")).to_numpy().astype("datetime64[D]")
    kept = [
        "AGEP",
        "SCHL",
        "MAR",
        "RELP",
        "DIS",
        "ESP",
        "CIT",
        "MIG",
        "MIL",
        "ANC",
        "NATIVITY",
        "DEAR",
        "DEYE",
        "DREM",
        "SEX",
        "RAC1P",
    ]
    features = rows[kept].astype(dict.fromkeys(kept[1:], str))
    return Rows(
        name="census",
        problem="binary_classification",
        metric="roc_auc",
        features=features,
        labels=rows["employed"].to_numpy().astype(int),
        days=days,
        known=days + 1,
        # The rows of a year have its last day, and there are four years: gates see the first two, the others are predicted.
        first=date(2017, 1, 1),
        window=731,
        holdout=365,
        window_days=365,
        period=365,
        cooldown=365,
        maximum_age=None,
        classes=(0, 1),
    )


def flights(cache: Path, solution: str = "flight_delay") -> Rows:
    """Return the flights of 2013 with the features of a bundled solution, predicted from July on; a label is known the day after."""
    table, inputs = flights_rows(solution, cache), bundled_inputs(solution)
    rows = table.to_pandas()
    problem, label = inputs.solution.problem, inputs.solution.spine.label
    binary = problem == "binary_classification"
    zone = inputs.solution.partitions.time_zone
    days, known = (
        _days(rows[name].dt.tz_convert(zone).dt.tz_localize(None))
        for name in (inputs.solution.spine.prediction_time, inputs.solution.spine.label_time)
    )
    return Rows(
        name="flights" if binary else "flights, minutes of delay",
        problem=problem,
        metric=inputs.solution.training.metric,
        features=rows[list(inputs.features)],
        labels=rows[label].to_numpy().astype(int if binary else float),
        days=days,
        known=known + 1,
        first=date(2013, 7, 1),
        window=181,
        maximum_age=60,
        cooldown=14,
        classes=(0, 1) if binary else (),
    )


def electricity(path: str) -> Rows:
    """Return the electricity market of New South Wales."""
    rows = pd.read_csv(path, parse_dates=["period_start"])
    days = _days(rows["period_start"].dt.tz_localize(None))
    return Rows(
        name="elec2",
        problem="binary_classification",
        metric="roc_auc",
        features=rows.drop(columns=["period_start", "price_up"]),
        labels=rows["price_up"].to_numpy().astype(int),
        days=days,
        known=days + 1,
        first=days.min().astype(object) + timedelta(days=140),
        window=140,
        classes=(0, 1),
    )


def streams(cache: Path) -> dict[str, Callable[[], Rows]]:
    """Return what builds each stream, by its name."""

    def changed_flights(kind: ChangeKind) -> Rows:
        rows = flights(cache).every(4)
        return rows.changed(kind, f"flights, {kind} change", (rows.features["carrier"] == "EV").to_numpy(), date(2013, 8, 19))

    built: dict[str, Callable[[], Rows]] = {
        "sea": lambda: sea((8, 9, 7, 9.5), "SEA", weeks=40),
        "sea recurring": lambda: sea((8, 9.5) * 5, "SEA, recurring", weeks=60),
        "sea stationary": lambda: sea((8,), "SEA, stationary", weeks=40),
        "hyperplane": lambda: hyperplane(0.05, "hyperplane, turning", weeks=40),
        "hyperplane stationary": lambda: hyperplane(0.0, "hyperplane, stationary", weeks=40),
        "car loan": car_loan,
        "car loan shuffled": lambda: car_loan().shuffled(),
        "credit cards": credit_cards,
        "car prices": car_prices,
        "census": census,
        "flights": lambda: flights(cache),
        "flights shuffled": lambda: flights(cache).every(4).shuffled(),
        "arrival delay": lambda: flights(cache, "arrival_delay").every(2),
        "flights abrupt": lambda: changed_flights("abrupt"),
        "flights gradual": lambda: changed_flights("gradual"),
        "flights recurring": lambda: changed_flights("recurring"),
        "flights seasonal": lambda: changed_flights("seasonal"),
    }
    if market := os.environ.get("MLOPS_ELEC2"):
        built |= {
            "elec2": lambda: electricity(market),
            "elec2 without price": lambda: replace(
                (rows := electricity(market)), name="elec2 without the price", features=rows.features.drop(columns="nsw_price")
            ),
            "elec2 shuffled": lambda: electricity(market).shuffled(),
        }
    return built
