"""The monitor of groups on the predictions of a window, with the YAML of its documentation."""

import re
from dataclasses import replace

import duckdb
import yaml
from decisions import INPUTS, Served, age_bundle

from mlops_assets.core.project import current_project
from mlops_assets.monitoring.groups_report import groups
from mlops_assets.monitoring.measures import Measure, MonitoredWindow
from mlops_assets.monitoring.monitor import further_monitors, monitors_of
from mlops_assets.monitoring.monitored_windows import MonitoredVersion
from mlops_assets.schema.monitoring_section import Groups

PAGE = (current_project().root / "docs" / "monitoring.md").read_text()
EXAMPLE = re.search(r"^## Sensitive groups\n.*?```yaml\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
assert EXAMPLE
SECTION = Groups.model_validate(yaml.safe_load(EXAMPLE.group(1))["monitoring"]["groups"])
DECLARED = replace(
    INPUTS,
    solution=INPUTS.solution.model_copy(update={"monitoring": INPUTS.solution.monitoring.model_copy(update={"groups": SECTION})}),
)


def measure(*, noise: float) -> dict[str, Measure]:
    """The measures of a week with 2000 visitors, of whom the women get scores that `noise` disturbs; a tenth has no label yet."""
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE visits AS SELECT id, DATE '2020-03-02' + CAST(id % 7 AS INTEGER) AS day, "
        "TIMESTAMPTZ '2020-03-02 00:00:00+00' + to_minutes(5 * id) AS asked_at, CASE WHEN id % 10 > 0 THEN hash(id) % 2 = 0 END AS late, "
        "CASE WHEN id % 5 < 2 THEN 'female' ELSE 'male' END AS sex, CAST(CASE WHEN hash(id) % 2 = 0 "
        f"THEN 0.8 - draw ELSE 0.2 + draw END AS FLOAT) AS score FROM (SELECT id, "
        f"CASE WHEN id % 5 < 2 THEN {noise} ELSE 0 END * (hash(id + 7) % 100) / 100 AS draw FROM range(2000) r(id))"
    )
    version = MonitoredVersion(1, Served().contract(1), reference=None)  # type: ignore[arg-type]
    window = MonitoredWindow(
        connection, DECLARED, "2020-03-02", version, rows="visits", reference_rows="visits", load_bundle=age_bundle
    )
    return {measure.subject: measure for measure in groups(window)}


def test_a_group_that_is_served_worse_alerts_with_difference_and_ratio() -> None:
    measures = measure(noise=0.7)
    loss = measures["log_loss where sex = female"]
    assert loss.alert
    assert re.fullmatch(
        r"log_loss [\d.]+ of 600 rows, 0.2231 of sex = male: difference \+[\d.]+ \[[\d.]+, [\d.]+\], ratio [\d.]+ \[[\d.]+, [\d.]+\]",
        loss.sentence,
    )
    assert loss.condition == "CAST(\"sex\" AS VARCHAR) = 'female'"
    assert measures["accuracy where sex = female"].alert
    assert set(measures) == {f"{metric} where sex = female" for metric in ("log_loss", "accuracy")}


def test_a_difference_below_the_stated_one_is_no_alert() -> None:
    measures = measure(noise=0.02)
    assert {measure.alert for measure in measures.values()} == {False}
    assert measures["accuracy where sex = female"].limit == SECTION.maximum_difference["accuracy"]


def test_the_report_belongs_to_solutions_that_declare_groups() -> None:
    assert [monitor.stage for monitor in further_monitors(DECLARED.solution)] == ["groups_report"]
    assert further_monitors(INPUTS.solution) == []
    assert [monitor.name for monitor in monitors_of(INPUTS.solution)] == ["performance", "data_quality", "drift"]


def test_without_labels_nothing_is_measured() -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE visits (id BIGINT, asked_at TIMESTAMPTZ, late BOOLEAN, sex VARCHAR, score FLOAT)")
    version = MonitoredVersion(1, Served().contract(1), reference=None)  # type: ignore[arg-type]
    assert list(groups(MonitoredWindow(connection, DECLARED, "2020-03-02", version, "visits", "visits", age_bundle))) == []
