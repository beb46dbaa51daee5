"""The solution `employment`: the same graph for another problem, another source and another cadence, from YAML and dbt models alone."""

import re
from pathlib import Path

import dagster as dg
import inprocess
import pytest
from recorded_reads import Reads, new_reads, recorded_reads, undeclared_and_unread
from running_stack import Platform

import mlops_assets
from mlops_assets.core.keys import SEGMENT_STAGES

SOLUTION = "employment"
TRAINING_DATE = "2017-01-01"
FOLDERS = ("census", "census_features", SOLUTION)
TRAINING = ("training_dataset", "model", "evaluation", "online_features", "deployment")


class Runs:
    """Runs of the assets of the three folders, on the session's lake and registry."""

    def __init__(self, platform: Platform):
        self.platform = platform
        self.assets = inprocess.load_assets(*FOLDERS)

    def of(self, keys: list[str], first: str, last: str) -> dg.ExecuteInProcessResult:
        result = inprocess.materialize(self.assets, keys, first=first, last=last, resources=self.platform.resources)
        assert result.success, (inprocess.failures(result), inprocess.failed_checks(result))
        return result


@pytest.fixture(scope="module")
def reads() -> Reads:
    """What every asset read in `finished`."""
    return new_reads()


@pytest.fixture(scope="module")
def finished(platform: Platform, reads: Reads) -> dict[str, dg.ExecuteInProcessResult]:
    """Raw rows to the decision by year; the results by purpose."""
    runs = Runs(platform)
    data = [key.to_user_string() for asset in runs.assets for key in asset.keys if key.path[-1] not in STAGES]
    with recorded_reads(reads):
        return {
            "data": runs.of(data, "2015-01-01", "2018-01-01"),
            "training": runs.of([f"{SOLUTION}/{stage}" for stage in TRAINING], TRAINING_DATE, TRAINING_DATE),
            "scoring": runs.of([f"{SOLUTION}/predictions", f"{SOLUTION}/outcomes"], TRAINING_DATE, "2018-01-01"),
            "monitoring": runs.of([f"{SOLUTION}/{stage}" for stage in REPORTS], TRAINING_DATE, "2018-01-01"),
            "decision": runs.of([f"{SOLUTION}/retraining_decision"], TRAINING_DATE, "2018-01-01"),
        }


REPORTS = ("data_quality_report", "drift_report", "performance_report", "monitoring_report")
STAGES = (
    *TRAINING,
    "challenger",
    "predictions",
    "prediction_log",
    "shadow_predictions",
    "outcomes",
    *REPORTS,
    "retraining_decision",
)


def newest(result: dg.ExecuteInProcessResult, stage: str) -> dict:
    """Values in the metadata of the last materialization of a stage."""
    events = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey([SOLUTION, stage])]
    return {name: entry.value for name, entry in events[-1].step_materialization_data.materialization.metadata.items()}


def test_the_graph_has_the_same_stages_as_every_solution() -> None:
    keys = {key.to_user_string() for asset in inprocess.load_assets(SOLUTION) for key in asset.keys}
    assert keys == {f"{SOLUTION}/{stage}" for stage in STAGES}
    others = {
        key.to_user_string().replace("flight_delay", SOLUTION)
        for asset in inprocess.load_assets("flight_delay")
        for key in asset.keys
    }
    # Models by segment are an option that this solution does not take.
    assert others - keys == {f"{SOLUTION}/{stage}" for stage in SEGMENT_STAGES.values()}
    assert keys <= others


def test_every_asset_declares_what_it_reads_and_reads_what_it_declares(
    finished: dict[str, dg.ExecuteInProcessResult], reads: Reads
) -> None:
    # Nothing was asked of a server.
    without = [dg.AssetKey([SOLUTION, "prediction_log"])]
    undeclared, unread = undeclared_and_unread(inprocess.load_assets(*FOLDERS), reads, without_table=without)
    assert (sorted(undeclared), sorted(unread)) == ([], [])


def test_the_model_is_good_on_the_year_held_out_and_on_those_after(finished: dict[str, dg.ExecuteInProcessResult]) -> None:
    evaluation = newest(finished["training"], "evaluation")
    assert evaluation["roc_auc"] >= 0.85
    assert evaluation["expected_calibration_error"] <= 0.05
    assert evaluation["gates_passed"] is True
    assert newest(finished["scoring"], "outcomes")["roc_auc"] >= 0.85


def test_every_person_of_the_predicted_years_is_predicted_once_and_evaluated(
    platform: Platform, finished: dict[str, dg.ExecuteInProcessResult]
) -> None:
    people = platform.rows("SELECT survey_date, count(*) FROM raw.census WHERE survey_date >= '2017-01-01' GROUP BY 1 ORDER BY 1")
    assert len(people) == 2
    for table in ("predictions", "outcomes"):
        query = f"""SELECT survey_date, count(*), count(DISTINCT person_id) FROM {SOLUTION}.{table}
            WHERE survey_date >= '{TRAINING_DATE}' GROUP BY 1 ORDER BY 1"""
        assert platform.rows(query) == [(day, count, count) for day, count in people]
    assert platform.value(f"SELECT bool_and(matured) FROM {SOLUTION}.outcomes")


def test_drift_is_reported_by_year(platform: Platform, finished: dict[str, dg.ExecuteInProcessResult]) -> None:
    windows = platform.rows(
        f"SELECT DISTINCT window_start::VARCHAR FROM {SOLUTION}.drift_report WHERE window_start >= '{TRAINING_DATE}' ORDER BY 1"
    )
    assert windows == [("2017-01-01",), ("2018-01-01",)]
    assert Path(newest(finished["monitoring"], "monitoring_report")["report"]).stat().st_size > 10_000
    # The survey asks the same questions of the same state: no feature moves far in a year.
    assert platform.value(f"SELECT count(*) FROM {SOLUTION}.drift_report WHERE alert AND kind = 'feature' AND slice IS NULL") <= 2
    # The performance estimated without labels is the realised one, in every year.
    errors = platform.rows(
        f"SELECT abs(estimated - realised) FROM {SOLUTION}.performance_report "
        f"WHERE metric = 'roc_auc' AND slice IS NULL AND complete AND window_start >= '{TRAINING_DATE}'"
    )
    assert errors
    assert max(error for (error,) in errors) < 0.01


def test_no_python_outside_defs_names_a_solution_or_a_data_set() -> None:
    package = Path(mlops_assets.__file__).parent
    folders = [path.name for path in inprocess.DEFS_DIRECTORY.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert set(FOLDERS) < set(folders)
    named = re.compile(rf"\b({'|'.join(folders)})\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(package)}:{number}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        if "defs" not in path.relative_to(package).parts
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if named.search(line)
    ]
    assert found == []
