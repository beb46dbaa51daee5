"""The rows of the reports on drift and performance: what each column holds. Loading the definitions reads them, so nothing heavy is imported."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlops_assets.schema.table_columns import column

ALL_FEATURES = "*"
RECONSTRUCTION_ERROR = "reconstruction_error"

METHOD_NAMES: Mapping[str, str] = {
    "jensen_shannon": "Jensen-Shannon distance",
    "wasserstein": "Wasserstein distance",
    "chi2": "chi-square statistic",
    "population_stability_index": "population stability index",
    RECONSTRUCTION_ERROR: "reconstruction error",
}


@dataclass(frozen=True)
class DriftRow:
    """One measure of one window, with its threshold and whether it is an alert.

    `slice` is None for all rows. `feature` is `*` (`kind` "all") for the reconstruction error. `threshold` is what chance and the usual
    differences between windows explain: those of all rows, in slices too. `effect` is compared with `effect_floor`, and is None where the
    reference has no spread to measure it in: then the threshold alone decides.
    """

    window: str = column("First day of the monitoring window.")
    slice: str | None = column("Null for all rows, else which of them: column = value.")
    feature: str = column("The column, or * for all features together.")
    kind: str = column(
        "feature, prediction, label (of the rows whose label is known), or all.",
        accepted=("feature", "prediction", "label", "all"),
    )
    method: str = column(
        "jensen_shannon, wasserstein, chi2, population_stability_index or reconstruction_error.", accepted=tuple(METHOD_NAMES)
    )
    value: float = column("The distance of the window from the reference.", minimum=0)
    threshold: float = column(
        "What chance and the usual differences between windows explain; the false alarms of a window are shared by all its cells."
    )
    effect: float | None = column(
        "Size of the change on the scale of the Jensen-Shannon distance; of the reconstruction error the relative change."
    )
    effect_floor: float = column("The least effect of an alert.", minimum=0)
    rows: int = column("Rows of the window that have a value.", minimum=0)
    alert: bool = column("Whether the value is above its threshold and the effect reaches its floor.")
    usual: float | None = column("Median effect of the windows of the reference period; null where they are too few.")
    farther: int | None = column("How many windows of the reference period are as far.", minimum=0)
    windows: int = column("How many windows the reference period has; 0: too few, and chance alone is the limit.", minimum=0)
    importance: float | None = column(
        "Share of the feature in the importance of all; null where it is not known.", minimum=0, maximum=1
    )


@dataclass(frozen=True)
class PerformanceRow:
    """One metric of one window and slice (None = all rows). Values that do not exist, or not yet, are None."""

    window: str = column("First day of the monitoring window.")
    slice: str | None = column("Null for all rows, else which of them: column = value.")
    metric: str = column("Name of the metric.")
    estimated: float | None = column(
        "Estimate without labels, by NannyML (CBPE, or DLE for a regression); null where the metric cannot be estimated."
    )
    estimated_lower: float | None = column("Three standard errors below the estimate.")
    estimated_upper: float | None = column("Three standard errors above it.")
    realised: float | None = column("The metric on the rows whose label is known; null until there are any.")
    realised_lower: float | None = column("Lower end of its 95 % bootstrap interval.")
    realised_upper: float | None = column("Upper end of it.")
    reference: float | None = column("The metric on the hold-out of the version.")
    expected: float | None = column(
        "The hold-out's value on as many rows as the window has; it differs where fewer rows raise a metric."
    )
    effect: float | None = column("The least change that matters.")
    error: float | None = column(
        "Standard error of the change: of the window, of the hold-out, and of the differences between windows before."
    )
    threshold: float | None = column(
        "What it must not be worse than: beyond it a change matters, and chance does not explain it."
    )
    rows: int = column("Predictions in the window.", minimum=0)
    matured_rows: int = column("Those whose label is known.", minimum=0)
    matured_share: float = column("Their share. It need not reach 1: some predictions never get a label.", minimum=0, maximum=1)
    complete: bool = column("Whether the last labels have had the time to come; otherwise the window is partial.")
    alert: bool = column(
        "Whether the realised value of a complete window, or the estimate of a partial one, is worse than the threshold."
    )
    best: float | None = column(
        "The level of the best version on the rows of the hold-out, where an earlier version leads beyond chance; else null."
    )
    floor: float | None = column("The value that the gates ask for; null where none does.")
