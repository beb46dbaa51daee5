"""The page of one monitoring window: one HTML file that needs nothing else, readable from the top down by whoever owns the product or the model.

What it says is put together here from the rows of the window's reports, how it looks is in `templates/monitoring_report.html.j2`, the geometry
of its charts in `charts.py`. Nothing is measured here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlops_assets.ml.charts import Distribution, Trend, categorical_distribution, number_text, numeric_distribution, trend
from mlops_assets.ml.drift import impact
from mlops_assets.ml.matrix import categorical_matrix, numeric_matrix
from mlops_assets.ml.performance_words import UNCERTAIN, describe_performance
from mlops_assets.ml.report_rows import METHOD_NAMES

TEMPLATE_DIRECTORY = Path(__file__).parent / "templates"
_PLOTTED = 8
_FEW_LABELS = 0.5
_SHORT = {
    "jensen_shannon": "Jensen-Shannon",
    "wasserstein": "Wasserstein",
    "chi2": "chi-square",
    "population_stability_index": "stability index",
    "reconstruction_error": "reconstruction error",
}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reports:
    """The rows of the reports on a window and, for the trends, on those before it (window_start up to and including this one).

    `measures` are those of the team's monitors by their titles: rows with subject, value, limit, alert and sentence.
    """

    window: str
    drift: Sequence[Row]
    performance: Sequence[Row]
    quality: Sequence[Row]
    measures: Mapping[str, Sequence[Row]]

    def of_window(self, rows: Sequence[Row]) -> list[Row]:
        """Those of `rows` that are about the window of the page."""
        return [row for row in rows if str(row["window_start"]) == self.window]


@dataclass(frozen=True)
class AlertLine:
    """An alert in words, with example rows (all of the same columns)."""

    source: str
    feature: str
    sentence: str
    examples: Sequence[Row]


@dataclass(frozen=True)
class ReportPage:
    """All that a page shows. `metric` is the one that models are chosen by; `samples` are the rows of the reference and of the window.

    `counts` says how many alerts there are by source; `alerts` are those that are shown.
    """

    title: str
    period: str
    metric: str
    versions: Sequence[int]
    reports: Reports
    counts: Mapping[str, int]
    alerts: Sequence[AlertLine]
    samples: tuple[pa.Table, pa.Table]
    links: Mapping[str, str]
    command: str


def render_monitoring_report(page: ReportPage) -> str:
    """The page as HTML. Raises ValueError on a link that is no address."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    unsafe = [address for address in page.links.values() if not address.startswith(("http://", "https://", "/", "./", "../"))]
    if unsafe:
        raise ValueError(f"Not an address to link to: {', '.join(unsafe)}.")
    drift = page.reports.of_window(page.reports.drift)
    features = feature_lines(page.reports)
    environment = Environment(loader=FileSystemLoader(TEMPLATE_DIRECTORY), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("monitoring_report.html.j2").render(
        page=page,
        verdict=verdict(page),
        alerting=bool(page.counts),
        hidden=sum(page.counts.values()) - len(page.alerts),
        tiles=_tiles(page),
        performance=performance_lines(page.reports, page.metric),
        slices=_slice_lines(page),
        lines={state: [line for line in features if line["state"] == state] for state in ("drifted", "small change", "as usual")},
        sliced_drift=_sliced(drift),
        distributions=_distributions(features, page.samples),
        quality=[row for row in page.reports.of_window(page.reports.quality) if row["alert"]],
        measures=measure_lines(page.reports),
        number=number_text,
    )


def verdict(page: ReportPage) -> str:
    """The window in one or two plain sentences."""
    rows = [row for row in page.reports.of_window(page.reports.performance) if _whole(row)]
    versions = [row["model_version"] for row in rows if row["alert"]] or [row["model_version"] for row in rows]
    evaluated = describe_performance([row for row in rows if row["model_version"] in versions[-1:]], page.metric)
    if not evaluated:
        text = "The performance of this window was not evaluated."
    elif any(row["alert"] for row in rows):
        text = f"The model is worse than when it was accepted: {evaluated}."
    elif UNCERTAIN in evaluated:
        text = f"Nothing shows that the model is worse than when it was accepted: {evaluated}."
    else:
        text = f"The model is as good as when it was accepted: {evaluated}."
    if (known := _few_labels(rows)) is not None:
        text = f"Only {known:.0%} of the predictions have a label, although labels had the time to come. {text}"
    own = {title.lower() for title in page.reports.measures}
    counts = {source: f"{count} {source} alert{'' if count == 1 else 's'}" for source, count in page.counts.items()}
    inputs = [count for source, count in counts.items() if source not in ("performance", *own)]
    others = [count for source, count in counts.items() if source in own]
    text += f" Its inputs changed: {' and '.join(inputs)}." if inputs else " Nothing about its inputs is out of the ordinary."
    return f"{text} Besides: {' and '.join(others)}." if others else text


def _few_labels(rows: Sequence[Row]) -> float | None:
    """The share of labels where most have not come, although they had the time to; None where they have, or need not have yet."""
    rows_and_labels = [(row["rows"], row["matured_rows"]) for row in rows if row["complete"]]
    known = sum(labels for _, labels in rows_and_labels) / max(sum(count for count, _ in rows_and_labels), 1)
    return known if rows_and_labels and known < _FEW_LABELS else None


def feature_lines(reports: Reports) -> list[dict[str, Any]]:
    """One line per monitored column of the window, worst first: its state, its effect with the trend of it, and every distance."""
    rows = [row for row in reports.of_window(reports.drift) if _whole(row)]
    lines = []
    for version, feature in dict.fromkeys((row["model_version"], row["feature"]) for row in rows):
        mine = [row for row in rows if row["feature"] == feature and row["model_version"] == version]
        worst = max(mine, key=lambda row: (row["alert"], row["effect"] or 0.0))
        beyond = any(row["value"] > row["threshold"] for row in mine)
        lines.append(
            {
                "feature": "all features together" if feature == "*" else feature,
                "kind": worst["kind"],
                "version": version,
                "state": "drifted" if worst["alert"] else "small change" if beyond else "as usual",
                "effect": worst["effect"],
                "impact": impact(worst),
                "importance": worst.get("importance"),
                "floor": worst["effect_floor"],
                "bar": round(min(100.0, 50 * (worst["effect"] or 0.0) / worst["effect_floor"]), 1),
                "distances": [
                    (_SHORT[row["method"]], METHOD_NAMES[row["method"]], number_text(row["value"]), number_text(row["threshold"]))
                    for row in mine
                ],
                "trend": _trend(reports.drift, feature, worst["method"], worst["effect_floor"]),
            }
        )
    return sorted(
        lines, key=lambda line: (line["state"] != "drifted", line["kind"] == "feature", -line["impact"], line["feature"])
    )


def performance_lines(reports: Reports, metric: str) -> list[dict[str, Any]]:
    """One line per metric of all rows of the window, the selection metric first, with its trend."""
    rows = [row for row in reports.of_window(reports.performance) if _whole(row)]
    history = [row for row in reports.performance if _whole(row)]
    return [
        {**row, "trend": _performance_trend(history, row)}
        for row in sorted(rows, key=lambda row: (row["metric"] != metric, row["model_version"]))
    ]


def measure_lines(reports: Reports) -> dict[str, list[dict[str, Any]]]:
    """One line per measure of the window, with its trend, by the title of the monitor; alerts first."""
    lines = {}
    for title, rows in reports.measures.items():
        of_window = sorted(reports.of_window(rows), key=lambda row: (not row["alert"], row["subject"], row["model_version"]))
        lines[title] = [{**row, "trend": _measure_trend(rows, row)} for row in of_window]
    return lines


def _measure_trend(history: Sequence[Row], of: Row) -> Trend:
    rows = sorted((row for row in history if row["subject"] == of["subject"]), key=lambda row: str(row["window_start"]))
    return trend(
        values=[row["value"] for row in rows],
        labels=[str(row["window_start"]) for row in rows],
        alerts=[row["alert"] for row in rows],
        threshold=of["limit"],
        from_zero=False,
        width=150,
        height=32,
    )


def _tiles(page: ReportPage) -> list[tuple[str, str, bool]]:
    """Facts in large type: text, value, whether it is an alert."""
    performance = [
        row for row in page.reports.of_window(page.reports.performance) if _whole(row) and row["metric"] == page.metric
    ]
    features = {
        (row["model_version"], row["feature"]): False
        for row in page.reports.of_window(page.reports.drift)
        if _whole(row) and row["kind"] == "feature"
    }
    for row in page.reports.of_window(page.reports.drift):
        if (key := (row["model_version"], row["feature"])) in features and _whole(row):
            features[key] |= row["alert"]
    findings = sum(row["alert"] for row in page.reports.of_window(page.reports.quality))
    tiles = [
        ("features drifted", f"{sum(features.values())} of {len(features)}", any(features.values())),
        ("data quality findings", str(findings), findings > 0),
    ]
    if performance:
        rows, known = sum(row["rows"] for row in performance), sum(row["matured_rows"] for row in performance)
        complete = all(row["complete"] for row in performance)
        tiles = [
            ("predictions", f"{rows:,}", False),
            ("labels known", f"{known / rows:.0%}{'' if complete else ', more to come'}", _few_labels(performance) is not None),
            *tiles,
        ]
    return [*tiles, ("model version", ", ".join(map(str, page.versions)), False)]


def _slice_lines(page: ReportPage) -> list[Row]:
    """The selection metric by slice, and every other that alerts: alerts first, then the largest slices."""
    rows = [
        row
        for row in page.reports.of_window(page.reports.performance)
        if not _whole(row) and (row["metric"] == page.metric or row["alert"])
    ]
    return sorted(rows, key=lambda row: (not row["alert"], -row["rows"], row["slice"], row["metric"] != page.metric))


def _sliced(drift: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Slices with drift that the whole window does not show, each with its alerts by effect."""
    everywhere = {row["feature"] for row in drift if _whole(row) and row["alert"]}
    alerts_by_slice: dict[str, list[Row]] = {}
    for row in sorted(drift, key=lambda row: -(row["effect"] or 0.0)):
        if row["alert"] and not _whole(row) and row["feature"] not in everywhere:
            alerts_by_slice.setdefault(row["slice"], []).append(row)
    return sorted(alerts_by_slice.items(), key=lambda item: -len(item[1]))


def _trend(drift: Sequence[Row], feature: str, method: str, floor: float) -> Trend:
    by_window: dict[str, Row] = {}
    for row in drift:
        if row["feature"] == feature and row["method"] == method and _whole(row):
            by_window[str(row["window_start"])] = row
    ordered = sorted(by_window.items())
    return trend(
        values=[row["effect"] for _, row in ordered],
        labels=[window for window, _ in ordered],
        alerts=[row["alert"] for _, row in ordered],
        threshold=floor,
        from_zero=True,
        width=110,
        height=28,
    )


def _performance_trend(history: Sequence[Row], of: Row) -> Trend:
    rows = sorted((row for row in history if row["metric"] == of["metric"]), key=lambda row: str(row["window_start"]))
    return trend(
        values=[row["realised"] if row["realised"] is not None else row["estimated"] for row in rows],
        labels=[str(row["window_start"]) for row in rows],
        alerts=[row["alert"] for row in rows],
        threshold=of["threshold"],
        from_zero=False,
        width=150,
        height=32,
    )


def _distributions(lines: Sequence[Row], samples: tuple[pa.Table, pa.Table]) -> list[Distribution]:
    """Of the most changed columns that both samples hold: reference beside window."""
    names = [line["feature"] for line in lines if all(line["feature"] in table.column_names for table in samples)]
    distributions = []
    for name in list(dict.fromkeys(names))[:_PLOTTED]:
        columns = [table.column(name) for table in samples]
        if any(pa.types.is_string(column.type) or pa.types.is_dictionary(column.type) for column in columns):
            texts = [categorical_matrix(table, [name])[:, 0] for table in samples]
            distributions.append(categorical_distribution(name, texts[0], texts[1], 300, 110))
        else:
            numbers = [numeric_matrix(table, [name])[:, 0] for table in samples]
            distributions.append(numeric_distribution(name, numbers[0], numbers[1], 300, 110))
    return distributions


def _whole(row: Row) -> bool:
    return row["slice"] is None
