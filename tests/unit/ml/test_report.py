from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.report import AlertLine, ReportPage, Reports, feature_lines, render_monitoring_report, verdict

W1, W2 = date(2020, 1, 6), date(2020, 1, 13)


def drift(
    window: date, feature: str, effect: float, *, kind: str = "feature", method: str = "jensen_shannon", slice_: str | None = None
) -> dict:
    return {
        "window_start": window,
        "model_version": 1,
        "slice": slice_,
        "feature": feature,
        "kind": kind,
        "method": method,
        "value": effect,
        "threshold": 0.05,
        "effect": effect,
        "effect_floor": 0.1,
        "rows": 1000,
        "alert": effect >= 0.1,
    }


def performance(window: date, *, alert: bool, complete: bool, slice_: str | None = None) -> dict:
    return {
        "window_start": window,
        "model_version": 1,
        "slice": slice_,
        "metric": "roc_auc",
        "estimated": 0.74,
        "estimated_lower": 0.72,
        "estimated_upper": 0.76,
        "realised": 0.69,
        "realised_lower": 0.67,
        "realised_upper": 0.71,
        "reference": 0.79,
        "threshold": 0.75,
        "rows": 1234,
        "matured_rows": 1200,
        "matured_share": 0.97,
        "complete": complete,
        "alert": alert,
    }


def measure(window: date, value: float) -> dict:
    """A row of a monitor of the team."""
    return {
        "window_start": window,
        "model_version": 1,
        "subject": "score",
        "value": value,
        "limit": 0.05,
        "alert": value > 0.05,
        "sentence": f"{value:.0%} of the predictions are at the ceiling",
        "condition": "score > 0.99",
    }


QUALITY = {
    "window_start": W2,
    "model_version": 1,
    "check": "missing_values",
    "feature": "age",
    "value": 0.4,
    "limit": 0.05,
    "rows": 400,
    "examples": None,
    "alert": True,
}


def page(
    *, color: str = "red", alerts: Sequence[AlertLine] | None = None, complete: bool = True, alert: bool = True
) -> ReportPage:
    random = np.random.default_rng(0)

    def table(rows: int) -> pa.Table:
        return pa.table({"age": random.normal(size=rows), "color": [color, None] * (rows // 2), "score": random.random(rows)})

    reports = Reports(
        window=W2.isoformat(),
        drift=[
            *(drift(window, "age", effect) for window, effect in ((W1, 0.05), (W2, 0.42))),
            drift(W2, "age", 0.3, method="wasserstein"),
            drift(W2, "color", 0.06),
            drift(W2, "quiet", 0.01),
            drift(W2, "score", 0.2, kind="prediction"),
            drift(W2, "*", 0.01, kind="all", method="reconstruction_error"),
            drift(W2, "color", 0.5, slice_="place = north"),
        ],
        performance=[
            performance(W1, alert=False, complete=True),
            performance(W2, alert=alert, complete=complete),
            performance(W2, alert=True, complete=True, slice_="place = north"),
        ],
        quality=[QUALITY],
        measures={"Ceiling": [measure(W1, 0.01), measure(W2, 0.2)]},
    )
    example = {"prediction_id": "s:1:1", "score": 0.91, "age": color}
    return ReportPage(
        title="Probability of something",
        period="13 January 2020 to 19 January 2020",
        metric="roc_auc",
        versions=[1],
        reports=reports,
        counts={"performance": 1, "drift": 2} if alerts is None else {},
        alerts=[AlertLine("drift", "age", "distance 0.42", [example])] if alerts is None else alerts,
        samples=(table(100), table(1234)),
        links={"run": "http://127.0.0.1:3000/runs/1"},
        command="mlops debug s --window 2020-01-13",
    )


class _Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "data")]


def test_the_page_needs_nothing_else() -> None:
    parsed = _Parsed(render_monitoring_report(page()))
    assert parsed.addresses == ["http://127.0.0.1:3000/runs/1"]
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert "svg" in parsed.tags


def test_it_says_first_how_good_the_model_is() -> None:
    assert verdict(page()).startswith(
        "The model is worse than when it was accepted: ranking worse (realised roc_auc 0.69, hold-out 0.79, limit 0.75)."
    )
    assert verdict(page(alert=False, complete=False)).startswith(
        "The model is as good as when it was accepted: ranking as usual (estimated roc_auc 0.74, hold-out 0.79)."
    )
    assert verdict(page()).endswith("Its inputs changed: 2 drift alerts.")
    blind = [{**row, "threshold": -0.1} for row in page(alert=False).reports.performance]
    told = verdict(replace(page(), reports=replace(page().reports, performance=blind)))
    assert told.startswith("Nothing shows that the model is worse than when it was accepted: ranking too uncertain to tell (")
    shown = page(alert=False)
    few = [{**row, "matured_rows": 12, "matured_share": 0.01} for row in shown.reports.performance]
    late = replace(shown, reports=replace(shown.reports, performance=few))
    assert verdict(late).startswith(
        "Only 1% of the predictions have a label, although labels had the time to come. The model is as good as"
    )
    assert "Only" not in verdict(
        replace(late, reports=replace(late.reports, performance=[{**row, "complete": False} for row in few]))
    )
    quiet = page(alert=False, alerts=[])
    assert verdict(quiet).endswith("Nothing about its inputs is out of the ordinary.")
    nothing = replace(quiet, reports=Reports(window=W2.isoformat(), drift=[], performance=[], quality=[], measures={}))
    assert "was not evaluated" in verdict(nothing)
    assert "Not evaluated" in render_monitoring_report(nothing)


def test_a_monitor_of_the_team_has_a_section_with_its_trend_and_a_place_in_the_verdict() -> None:
    text = render_monitoring_report(page())
    section = text.split("<h2>Ceiling</h2>")[1].split("</section>")[0]
    assert "beyond the limit" in section
    assert "20% of the predictions are at the ceiling" in section
    assert section.count("<circle") == 2
    counted = replace(page(), counts={"ceiling": 2})
    assert verdict(counted).endswith("Nothing about its inputs is out of the ordinary. Besides: 2 ceiling alerts.")


def test_the_worst_column_comes_first_and_states_are_told_apart() -> None:
    lines = feature_lines(page().reports)
    assert [(line["feature"], line["state"]) for line in lines] == [
        ("score", "drifted"),
        ("age", "drifted"),
        ("all features together", "as usual"),
        ("color", "small change"),
        ("quiet", "as usual"),
    ]
    assert len(lines[1]["distances"]) == 2
    assert len(lines[1]["trend"].points) == 2


def test_rows_slices_and_findings_are_shown() -> None:
    text = render_monitoring_report(page())
    for shown in (
        "s:1:1",
        "place = north",
        "missing values",
        "mlops debug s --window 2020-01-13",
        "2 more alerts",
        "1,234",
        "97%",
    ):
        assert shown in text, shown


def test_values_of_the_data_are_escaped() -> None:
    text = render_monitoring_report(page(color="<script>alert(1)</script>"))
    assert "script" not in _Parsed(text).tags
    assert "&lt;script&gt;" in text


def test_only_addresses_are_linked() -> None:
    with pytest.raises(ValueError, match="Not an address to link to: javascript"):
        render_monitoring_report(replace(page(), links={"x": "javascript:alert(1)"}))
