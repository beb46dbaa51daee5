"""The monitor of attributions on the predictions of a window, by a real model that reads one feature."""

from dataclasses import replace

import duckdb
from decisions import INPUTS, Served, age_bundle

from mlops_assets.monitoring.attribution_report import attribution
from mlops_assets.monitoring.measures import MonitoredWindow
from mlops_assets.monitoring.monitor import further_monitors
from mlops_assets.monitoring.monitored_windows import MonitoredVersion
from mlops_assets.schema.monitoring_section import Attribution

MONITORING = INPUTS.solution.monitoring.model_copy(update={"attribution": Attribution(rows=200)})
DECLARED = replace(INPUTS, solution=INPUTS.solution.model_copy(update={"monitoring": MONITORING}))


def test_the_only_feature_has_all_of_what_moves_the_predictions() -> None:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE visits AS SELECT id, DATE '2020-03-02' + CAST(id % 7 AS INTEGER) AS day, now() AS asked_at, "
        "hash(id) % 100 / 100 AS age FROM range(900) r(id)"
    )
    version = MonitoredVersion(1, Served().contract(1), reference=None)  # type: ignore[arg-type]
    window = MonitoredWindow(connection, DECLARED, "2020-03-02", version, "visits", "visits", age_bundle)
    [measure] = attribution(window)
    assert (measure.subject, measure.value, measure.limit, measure.alert) == ("age", 0.0, 0.05, False)
    assert measure.sentence.startswith("100.0% of what moves the predictions, 100.0% on the hold-out")
    assert [monitor.stage for monitor in further_monitors(DECLARED.solution)] == ["attribution_report"]
