"""What a drift measurement takes and gives: settings, rows and their collection. Measuring is in `drift.py`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

ALL_FEATURES = "*"
RECONSTRUCTION_ERROR = "reconstruction_error"


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """How drift is measured, and when it alerts.

    `continuous_methods` and `categorical_methods` are NannyML's names. `effect_floors` gives, per method, the least effect of
    an alert: the distance itself (Jensen-Shannon and others from 0 to 1), for `wasserstein` the distance in standard
    deviations of the reference, for `reconstruction_error` the relative change of the reference's mean error.
    `reference_chunks` pieces of the reference, in its row order, give the thresholds where no chunk column does.
    A categorical feature with more than `maximum_categories` values in the reference keeps the most frequent ones; the
    others, and values never seen, count as one, because rare values differ between any two samples. Such a feature is left
    out of the reconstruction error, whose encoding by frequency says nothing about it.
    At most `maximum_rows` rows per window and of the reference are read, those whose key has the lowest hash; None reads all.
    """

    continuous_methods: tuple[str, ...] = ("jensen_shannon",)
    categorical_methods: tuple[str, ...] = ("jensen_shannon",)
    effect_floors: Mapping[str, float] = field(
        default_factory=lambda: {"jensen_shannon": 0.1, "wasserstein": 0.1, RECONSTRUCTION_ERROR: 0.05}
    )
    reference_chunks: int = 10
    maximum_categories: int = 100
    maximum_rows: int | None = None


@dataclass(frozen=True)
class DriftRow:
    """One measure of one window.

    `feature` is "*" for the reconstruction error. `value` is None when the window or the reference holds no value of the
    feature; such a row alerts when only one of them does. `effect` is what the effect floor is compared
    with; it is None where the reference has no spread to measure it in, and then NannyML's threshold alone decides.
    """

    window: str
    feature: str
    method: str
    value: float | None
    lower_threshold: float | None
    upper_threshold: float | None
    effect: float | None
    alert: bool


@dataclass(frozen=True)
class DriftResult:
    """All measures of all windows, in window order, with what they were computed from."""

    rows: tuple[DriftRow, ...]
    reference_rows: int
    window_rows: Mapping[str, int]
    collapsed_features: tuple[str, ...]
    excluded_from_reconstruction: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The result as plain lists and dictionaries, for JSON."""
        return asdict(self)

    def to_arrow(self) -> pa.Table:
        """The rows as a table with the columns of `DriftRow`."""
        return pa.Table.from_pylist([asdict(row) for row in self.rows], schema=_ROW_SCHEMA)

    def of_window(self, window: str) -> tuple[DriftRow, ...]:
        """The rows of one window."""
        return tuple(row for row in self.rows if row.window == window)


_ROW_SCHEMA = pa.schema(
    [
        ("window", pa.string()),
        ("feature", pa.string()),
        ("method", pa.string()),
        ("value", pa.float64()),
        ("lower_threshold", pa.float64()),
        ("upper_threshold", pa.float64()),
        ("effect", pa.float64()),
        ("alert", pa.bool_()),
    ]
)
