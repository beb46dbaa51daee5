"""The drift report of one window: one HTML page that needs nothing else.

What the page says is put together here, how it looks is in `templates/drift_report.html.j2`, and the geometry of its charts
in `charts.py`. Measuring drift belongs to `drift.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlops_assets.ml.charts import (
    Distribution,
    Trend,
    categorical_distribution,
    number_text,
    numeric_distribution,
    trend,
)
from mlops_assets.ml.drift import ALL_FEATURES, DriftResult, DriftRow
from mlops_assets.ml.matrix import FeatureSchema, categorical_matrix, numeric_matrix

TEMPLATE_DIRECTORY = Path(__file__).parent / "templates"
METHOD_NAMES: Mapping[str, str] = {
    "jensen_shannon": "Jensen-Shannon distance",
    "wasserstein": "Wasserstein distance",
    "kolmogorov_smirnov": "Kolmogorov-Smirnov statistic",
    "hellinger": "Hellinger distance",
    "l_infinity": "largest change of a share",
    "chi2": "chi-squared statistic",
    "reconstruction_error": "reconstruction error",
}
_PLOTTED_FEATURES = 8
_AS_USUAL = "as usual"


@dataclass(frozen=True)
class FeatureLine:
    """One line of the feature table. `bar` and `mark` are the value and its threshold in percent of the widest bar."""

    feature: str
    method: str
    status: str
    value: str
    threshold: str
    bar: float
    mark: float | None
    trend: Trend


def render_drift_report(
    *,
    title: str,
    window: str,
    result: DriftResult,
    reference: pa.Table,
    current: pa.Table,
    schema: FeatureSchema,
    scores: tuple[np.ndarray, np.ndarray] | None,
    links: Mapping[str, str],
) -> str:
    """The page of `window`, one of the windows of `result`.

    `reference` and `current` hold the features of the reference and of this window, for the distributions; `scores` are the
    model's predictions on both, or None; `links` maps texts to addresses. Raises ValueError when `result` has no such window.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    rows = result.of_window(window)
    if not rows:
        raise ValueError(f"The drift result has no window {window!r}: it has {', '.join(result.window_rows)}.")
    unsafe = [address for address in links.values() if not address.startswith(("http://", "https://", "/", "./", "../"))]
    if unsafe:
        raise ValueError(f"Not an address to link to: {', '.join(unsafe)}.")
    features = sorted((row for row in rows if row.feature != ALL_FEATURES), key=_severity)
    together = [row for row in rows if row.feature == ALL_FEATURES]
    plotted = list(dict.fromkeys(row.feature for row in features))[:_PLOTTED_FEATURES]
    distributions = [_distribution(name, reference, current, schema) for name in plotted]
    lines = _feature_lines(result, features)
    environment = Environment(loader=FileSystemLoader(TEMPLATE_DIRECTORY), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("drift_report.html.j2").render(
        title=title,
        window=window,
        headline=headline(rows),
        alerting=any(row.alert for row in rows),
        facts=_facts(result, window, features),
        changed=[line for line in lines if line.status != _AS_USUAL],
        unchanged=[line for line in lines if line.status == _AS_USUAL],
        together=_feature_lines(result, together),
        together_trend=_trend_of(result, together[0], 960, 120) if together else None,
        distributions=distributions,
        scores=numeric_distribution("Predictions", *scores, 640, 130) if scores is not None else None,
        links=links,
        windows=list(result.window_rows),
        collapsed=result.collapsed_features,
        excluded=result.excluded_from_reconstruction,
    )


def headline(rows: tuple[DriftRow, ...]) -> str:
    """One or two plain sentences on what changed in the window of `rows`, and how much."""
    measured = {row.feature for row in rows if row.feature != ALL_FEATURES}
    alerts = sorted((row for row in rows if row.alert and row.feature != ALL_FEATURES), key=_severity)
    drifted = list(dict.fromkeys(row.feature for row in alerts))
    together = [row for row in rows if row.feature == ALL_FEATURES]
    joint = any(row.alert for row in together)
    if not drifted:
        text = f"None of the {len(measured)} features drifted."
    else:
        named = ", ".join(drifted[:3]) + (f" and {len(drifted) - 3} more" if len(drifted) > 3 else "")
        text = f"{len(drifted)} of {len(measured)} features drifted: {named}."
    if joint:
        effect = together[0].effect or 0.0
        text += f" The features also relate to each other differently (reconstruction error off by {effect:.0%})."
    elif together and drifted:
        text += " How the features relate to each other is as usual."
    return text


def _severity(row: DriftRow) -> tuple[bool, bool, float, str, str]:
    """Sort key, worst first: alerts, then vanished or new features, then by effect."""
    return (not row.alert, row.value is not None, -(row.effect or 0.0), row.feature, row.method)


def _status(row: DriftRow) -> str:
    if row.alert:
        return "drifted"
    if row.value is None:
        return "no values"
    over = row.upper_threshold is not None and row.value > row.upper_threshold
    under = row.lower_threshold is not None and row.value < row.lower_threshold
    return "small change" if over or under else _AS_USUAL


def _feature_lines(result: DriftResult, rows: list[DriftRow]) -> list[FeatureLine]:
    lines = []
    for row in rows:
        peers = [each for each in rows if each.method == row.method]
        widest = max((max(each.value or 0.0, each.upper_threshold or 0.0) for each in peers), default=0.0) or 1.0
        # Distances up to 1 share a scale; other units compare a value with its own threshold.
        own = row.method in ("wasserstein", "reconstruction_error", "chi2")
        scale = (max(row.value or 0.0, row.upper_threshold or 0.0) or 1.0) if own else widest
        lines.append(
            FeatureLine(
                feature=row.feature,
                method=METHOD_NAMES.get(row.method, row.method),
                status=_status(row),
                value="none" if row.value is None else number_text(row.value),
                threshold="" if row.upper_threshold is None else number_text(row.upper_threshold),
                bar=round(100 * (row.value or 0.0) / scale, 1),
                mark=None if row.upper_threshold is None else round(100 * row.upper_threshold / scale, 1),
                trend=_trend_of(result, row, 110, 28),
            )
        )
    return lines


def _trend_of(result: DriftResult, row: DriftRow, width: int, height: int) -> Trend:
    same = [each for each in result.rows if (each.feature, each.method) == (row.feature, row.method)]
    return trend(
        values=[each.value for each in same],
        labels=[each.window for each in same],
        alerts=[each.alert for each in same],
        threshold=row.upper_threshold,
        from_zero=row.feature != ALL_FEATURES,
        width=width,
        height=height,
    )


def _distribution(name: str, reference: pa.Table, current: pa.Table, schema: FeatureSchema) -> Distribution:
    if name in schema.numeric:
        numbers = [numeric_matrix(table, [name])[:, 0] for table in (reference, current)]
        return numeric_distribution(name, numbers[0], numbers[1], 300, 110)
    texts = [categorical_matrix(table, [name])[:, 0] for table in (reference, current)]
    return categorical_distribution(name, texts[0], texts[1], 300, 110)


def _facts(result: DriftResult, window: str, features: list[DriftRow]) -> dict[str, str]:
    drifted = {row.feature for row in features if row.alert}
    return {
        "features drifted": f"{len(drifted)} of {len({row.feature for row in features})}",
        "rows in this window": f"{result.window_rows[window]:,}",
        "rows in the reference": f"{result.reference_rows:,}",
        "windows measured": f"{len(result.window_rows)}",
    }
