import base64
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mlops_assets.ml.evaluation import Resampling, evaluate
from mlops_assets.ml.evaluation_plots import (
    calibration_plot,
    confusion_plot,
    importance_plot,
    ranking_plot,
    residual_plot,
    score_plot,
    slice_plot,
)
from mlops_assets.ml.figures import markdown_image
from mlops_assets.ml.importance import Importance, Importances
from mlops_assets.ml.monitoring_plots import feature_statistics_plot
from mlops_assets.schema.metric_names import metric_names

DAYS = [f"2013-01-{day:02}" for day in range(1, 31)]
RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random(30_000) < 0.3).astype(np.int64)
SCORES = np.clip(0.3 + 0.2 * (LABELS - 0.3) + RANDOM.normal(0, 0.15, 30_000), 0.01, 0.99)
EVALUATION = evaluate(
    problem="binary_classification",
    metrics=metric_names("binary_classification"),
    labels=LABELS,
    predictions=SCORES,
    training_labels=LABELS,
    classes=(0, 1),
    threshold=0.5,
    slices=pa.table({"group": RANDOM.choice([f"group number {number} of a long name" for number in range(40)], 30_000)}),
    minimum_slice_rows=100,
    resampling=None,
)
WITH_INTERVALS = evaluate(
    problem="regression",
    metrics=metric_names("regression"),
    labels=SCORES[:600],
    predictions=LABELS[:600].astype(float),
    training_labels=SCORES,
    classes=(),
    threshold=0.5,
    slices=pa.table({"group": ["a"] * 250 + ["b"] * 350}),
    minimum_slice_rows=100,
    resampling=Resampling(seed=0, slice_metrics=("mean_absolute_error",)),
)
IMPORTANCES = Importances(
    metric="roc_auc",
    rows=100,
    repeats=5,
    features=tuple(Importance(f"feature_{number}_of_a_view_with_a_long_name", 0.1 / (1 + number), 0.01) for number in range(30)),
)
PLOTS = {
    "ranking": lambda: ranking_plot(LABELS, SCORES),
    "calibration": lambda: calibration_plot(EVALUATION),
    "scores": lambda: score_plot(LABELS, SCORES, 0.5),
    "slices": lambda: slice_plot(EVALUATION.slices, "roc_auc", 0.8),
    "slices with intervals": lambda: slice_plot(WITH_INTERVALS.slices, "mean_absolute_error", 0.3),
    "importance": lambda: importance_plot(IMPORTANCES),
    "confusion": lambda: confusion_plot(LABELS, (SCORES > 0.5).astype(int), (0, 1)),
    "residuals": lambda: residual_plot(SCORES * 100, SCORES * 90 + 3),
}


@pytest.mark.parametrize("draw", PLOTS.values(), ids=PLOTS)
def test_a_plot_is_a_small_image_and_always_the_same(draw) -> None:
    png = draw()
    with Image.open(io.BytesIO(png)) as image:
        assert image.width >= 200
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert len(png) < 60_000
    assert draw() == png


def test_markdown_embeds_the_image() -> None:
    text = markdown_image("ROC", b"bytes")
    assert text == f"![ROC](data:image/png;base64,{base64.b64encode(b'bytes').decode()})"


def test_what_cannot_be_drawn_is_an_error() -> None:
    with pytest.raises(ValueError, match="rows of both classes"):
        ranking_plot(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="No slice has the metric"):
        slice_plot([], "roc_auc", 0.5)


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_many_features_give_one_small_image() -> None:
    series = {f"view.feature_{number}": [(0.1, float(number + day)) for day in range(30)] for number in range(66)}
    png = feature_statistics_plot(DAYS, series)
    assert png.startswith(b"\x89PNG")
    assert len(png) < 60_000


def test_a_change_shows_and_what_is_constant_or_without_values_is_drawn() -> None:
    steady: list[tuple[float | None, float | None]] = [(0.0, 5.0)] * 30
    texts: list[tuple[float | None, float | None]] = [(0.2, None)] * 30
    shifted = [*steady[:15], *[(0.9, 50.0)] * 15]
    absent = [*steady[:15], *[(None, None)] * 15]
    plain = _pixels(feature_statistics_plot(DAYS, {"v.a": steady, "v.text": texts}))
    for changed in (shifted, absent):
        other = _pixels(feature_statistics_plot(DAYS, {"v.a": changed, "v.text": texts}))
        assert other.shape == plain.shape
        assert (other != plain).any()


@pytest.mark.filterwarnings("error")
def test_no_feature_has_a_mean() -> None:
    assert feature_statistics_plot(DAYS, {"v.text": [(0.2, None)] * 30})
