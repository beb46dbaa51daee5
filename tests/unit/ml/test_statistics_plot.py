import io

import numpy as np
import pytest

from mlops_assets.ml.plots import feature_statistics_plot

DAYS = [f"2013-01-{day:02}" for day in range(1, 31)]


def _pixels(png: bytes) -> np.ndarray:
    from PIL import Image

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
