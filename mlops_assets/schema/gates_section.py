"""The YAML schema of the sections `checks` and `gates`: bounds of a training dataset and of a candidate."""

from typing import Annotated, Any

from pydantic import Field

from mlops_assets.schema.yaml_model import YamlModel

_ROWS_PER_FEATURE, _LEAST_ROWS, _ENOUGH_ROWS = 10, 50, 1000
"""A rule of thumb of regression: with fewer rows for each feature a model follows the noise."""


class DatasetChecks(YamlModel):
    """Bounds a training dataset must keep before anything is fitted on it. Shares are from 0 to 1."""

    minimum_rows: int | None = None
    """The least training rows. Checked by `row_count`. Left out: ten for each feature, from 50 to 1000."""
    maximum_missing: float = 0.95
    """The largest share of missing values of a feature. Checked by `missing`."""
    maximum_label_correlation: float = 0.95
    """The largest absolute correlation of a numeric feature with the label (`leakage_guard`)."""
    label_rate: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Least and greatest mean of the label, in training rows and hold-out alike. Checked by `label_rate`."""

    def least_rows(self, features: int) -> int:
        """The least training rows of a solution with so many features."""
        if self.minimum_rows is not None:
            return self.minimum_rows
        return min(_ENOUGH_ROWS, max(_LEAST_ROWS, _ROWS_PER_FEATURE * features))


class Gates(YamlModel):
    """What a candidate must reach on the hold-out, as a whole and in each slice, to be deployed; and how fast it must answer."""

    floor: dict[str, float] = {}
    """Metric -> the value it must reach on the hold-out (an upper bound where smaller is better)."""
    against_champion: dict[str, float] = {}
    """Metric -> by how much the candidate may be worse than the champion on the same rows. A negative number asks for an
    improvement. Left out: `training.metric` may not be worse by more than a fiftieth of the champion's distance from the perfect value.
    Whatever chance explains is no difference."""
    slices: list[str] = []
    """Features or entity keys by which metrics are shown, with intervals."""
    worst_slice: dict[str, float] = {}
    """Metric -> the value that every slice of `slices` with 200 rows or more must reach, unless chance explains the lack."""
    groups: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Metric -> by how much a group of `monitoring.groups` may be worse than the others on the hold-out, unless chance explains the rest."""
    maximum_calibration_error: float | None = None
    """The largest expected calibration error. Binary problems only."""
    maximum_onnx_difference: float = 1e-4
    """The largest difference between the ONNX bundle and the scikit-learn pipeline on hold-out rows."""
    maximum_latency_milliseconds: Annotated[float, Field(gt=0)] = 250.0
    """The longest time that 99 of 100 single rows may take to be predicted."""
    own: dict[str, dict[str, Any]] = {}
    """[Gates of your own](extend.md#gate): import path or name of an entry point -> parameters."""

    @property
    def all_floors(self) -> dict[str, float]:
        """The value that each metric with one must reach on all rows, the calibration error included."""
        if self.maximum_calibration_error is None:
            return self.floor
        return {"expected_calibration_error": self.maximum_calibration_error, **self.floor}
