"""Every policy of retraining on streams whose drift is known, and on the electricity market of a file that is named.

The table of docs/retraining.md is written by this benchmark. `MLOPS_ELEC2` names elec2.csv.gz, which is not part of the project.
"""

import os
import re
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drifting_streams import evaluation

from mlops_assets.ml.policy_comparison import FIXED, Arm, ArmSettings, build_arms, difference_of, run_arms, summarise_arms
from mlops_assets.ml.prequential import ArmResult, Prequential, equal_windows
from mlops_assets.ml.shared_fits import Models, Stream

PAGE = Path(__file__).parents[2] / "docs" / "retraining.md"
ARMS = build_arms(ArmSettings(window=70, period=28, cooldown=14, maximum_age=180, minimum_new_rows=280))
STREAMS = {
    "stationary": [0.0] * 24,
    "a change in week 9": [0.0] * 8 + [1.5] * 16,
    "a change all the time": [0.0] * 4 + list(np.linspace(0, 3, 20)),
}
MARGIN = 0.002
MARKET = os.environ.get("MLOPS_ELEC2")


def write(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def cell(arm: ArmResult) -> str:
    return f"{np.mean([value for value in arm.metrics if value is not None]):.4f} ({len(arm.fits)})"


def test_known_drift() -> None:
    """The table, and the goal: `all` is not worse than the best fixed policy, and trains nothing where nothing changes."""
    results = {name: run_arms(evaluation(angles), ARMS, lambda text: None) for name, angles in STREAMS.items()}
    header = f"| policy | {' | '.join(results)} |\n|---|{'---|' * len(results)}"
    rows = [f"| `{name}` | {' | '.join(cell(arms[name]) for arms in results.values())} |" for name in ARMS]
    oracles = [summarise_arms(arms, "roc_auc")[-1].metric for arms in results.values()]
    rows.append(f"| oracle | {' | '.join(f'{value:.4f}' for value in oracles)} |")
    table = "\n".join([header, *rows])
    write(f"\n{table}")
    text = re.sub(
        r"(<!-- policies -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{table}\n\n{found[2]}",
        PAGE.read_text(),
        flags=re.S,
    )
    PAGE.write_text(text)
    assert not results["stationary"]["all"].count("retrain")
    for name, arms in results.items():
        best, value, low, high = difference_of(arms, "roc_auc", "all", FIXED)
        write(f"{name}: all against {best} {value:+.4f} ({low:+.4f} to {high:+.4f})")
        assert value > -MARGIN


@dataclass(frozen=True)
class Trees:
    """Boosted trees on the columns of the market."""

    features: np.ndarray
    labels: np.ndarray

    def fit_predict(self, rows: np.ndarray, weights: np.ndarray | None, later: np.ndarray) -> np.ndarray:
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(random_state=0, early_stopping=False)
        return model.fit(self.features[rows], self.labels[rows], weights).predict_proba(self.features[later])[:, 1]


if MARKET:

    @pytest.mark.parametrize("order", ["of time", "shuffled"])
    def test_the_electricity_market(order: str, tmp_path: Path) -> None:
        """Windows of a week, the first training after 140 days; once with the days shuffled, which makes a stationary control."""
        rows = pd.read_csv(MARKET, parse_dates=["period_start"])
        days = rows["period_start"].dt.tz_localize(None).to_numpy().astype("datetime64[D]")
        features, labels = (
            rows.drop(columns=["period_start", "price_up"]).to_numpy(float),
            rows["price_up"].to_numpy().astype(int),
        )
        if order == "shuffled":
            shuffled = np.random.default_rng(0).permutation(len(labels))
            features, labels = features[shuffled], labels[shuffled]
        stream = Stream("binary_classification", days, days + 1, labels, (0, 1))
        windows = equal_windows(stream, days.min().astype(object) + timedelta(days=140), 7)
        models = Models(stream, Trees(features, labels), squared=False, folder=tmp_path, identity=order)
        evaluated = Prequential(models, windows=windows, holdout_days=14, half_life=46, metric="roc_auc")
        arms: dict[str, Arm] = build_arms(ArmSettings(window=140, period=28, cooldown=7, maximum_age=180, minimum_new_rows=672))
        for summary in summarise_arms(run_arms(evaluated, arms, lambda text: None), "roc_auc"):
            write(str(summary))
