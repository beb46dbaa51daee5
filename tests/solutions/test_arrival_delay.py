"""The solution `arrival_delay`: a regression on the tables that the demo loaded, from one YAML file and one dbt model."""

import dagster as dg
import inprocess
import pytest
from recorded_reads import Reads, new_reads, recorded_reads, undeclared_and_unread
from running_stack import Demo, Platform

pytestmark = pytest.mark.long

SOLUTION = "arrival_delay"
TRAINING_DATE = "2013-02-01"
LAST = "2013-02-28"
TRAINING = tuple(f"{SOLUTION}/{stage}" for stage in ("training_dataset", "model", "evaluation", "online_features", "deployment"))
SCORING = (f"{SOLUTION}/predictions", f"{SOLUTION}/outcomes")
REPORTS = ("data_quality_report", "drift_report", "performance_report", "monitoring_report")


@pytest.fixture(scope="module")
def reads() -> Reads:
    """What every asset read in `finished`."""
    return new_reads()


@pytest.fixture(scope="module")
def finished(platform: Platform, demo: Demo, reads: Reads) -> dict[str, dg.ExecuteInProcessResult]:
    """Spine to drift; the results by purpose."""
    assets = inprocess.load_assets("nycflights13_features", SOLUTION)

    def run(keys: tuple[str, ...], first: str, last: str) -> dg.ExecuteInProcessResult:
        result = inprocess.materialize(assets, keys, first=first, last=last, resources=platform.resources)
        assert result.success, (inprocess.failures(result), inprocess.failed_checks(result))
        return result

    with recorded_reads(reads):
        return {
            "spine": run((f"{SOLUTION}/spine",), "2013-01-01", LAST),
            "training": run(TRAINING, TRAINING_DATE, TRAINING_DATE),
            "scoring": run(SCORING, TRAINING_DATE, LAST),
            "monitoring": run(tuple(f"{SOLUTION}/{stage}" for stage in REPORTS), "2013-02-04", "2013-02-04"),
        }


def newest(result: dg.ExecuteInProcessResult, stage: str) -> dict:
    """Values in the metadata of the last materialization of a stage."""
    events = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey([SOLUTION, stage])]
    return {name: entry.value for name, entry in events[-1].step_materialization_data.materialization.metadata.items()}


def test_every_asset_declares_what_it_reads_and_reads_what_it_declares(
    finished: dict[str, dg.ExecuteInProcessResult], reads: Reads
) -> None:
    # Nothing was asked of a server.
    without = [dg.AssetKey([SOLUTION, "prediction_log"])]
    undeclared, unread = undeclared_and_unread(
        inprocess.load_assets("nycflights13_features", SOLUTION), reads, without_table=without
    )
    assert (sorted(undeclared), sorted(unread)) == ([], [])


def test_it_is_better_than_the_best_constant_in_the_hold_out_and_afterwards(
    finished: dict[str, dg.ExecuteInProcessResult],
) -> None:
    for values in (newest(finished["training"], "evaluation"), newest(finished["scoring"], "outcomes")):
        assert values["mean_absolute_error"] < 0.97 * values["naive_baseline"]["mean_absolute_error"]
        assert values["r2"] > 0.05


def test_every_flight_of_the_month_has_a_number_of_minutes(
    platform: Platform, finished: dict[str, dg.ExecuteInProcessResult]
) -> None:
    query = "SELECT count(*), count(DISTINCT flight_id) FROM {} WHERE flight_date BETWEEN '2013-02-01' AND '2013-02-28'"
    [flights] = platform.rows(query.format("staging.flights"))
    assert platform.rows(query.format(f"{SOLUTION}.predictions")) == [flights]
    low, middle, high = platform.rows(f"SELECT min(value), median(value), max(value) FROM {SOLUTION}.predictions")[0]
    assert -60 < low < middle < high < 600
    # The flights that it expects to be the latest are late by more than the others.
    late = platform.rows(
        f"SELECT avg(arrival_delay_minutes) FROM (SELECT *, ntile(10) OVER (ORDER BY value) AS part FROM {SOLUTION}.outcomes "
        "WHERE matured) GROUP BY part = 10 ORDER BY part = 10"
    )
    assert late[1][0] > late[0][0] + 20


def test_its_card_speaks_of_values_and_not_of_classes(finished: dict[str, dg.ExecuteInProcessResult]) -> None:
    card = newest(finished["training"], "evaluation")["model_card"]
    assert card.startswith("# arrival\\_delay version ")
    assert "predicted far too short" in card
    assert "| mean\\_absolute\\_error |" in card
    assert "| origin = JFK |" in card
    for word in ("classes", "threshold", "roc", "calibration"):
        assert word not in card, word


def test_drift_and_performance_of_a_regression_are_reported(
    platform: Platform, finished: dict[str, dg.ExecuteInProcessResult]
) -> None:
    assert platform.value(f"SELECT count(DISTINCT feature) FROM {SOLUTION}.drift_report") > 20
    [(estimated, realised)] = platform.rows(
        f"SELECT estimated, realised FROM {SOLUTION}.performance_report WHERE metric = 'mean_absolute_error' AND slice IS NULL"
    )
    assert estimated > 0
    assert realised > 0
