"""The solution `employment`: the same graph for another problem, another source and another cadence, from YAML and dbt models alone.

What its model and its reports are worth is in `test_retraining_loop.py`.
"""

import re
from pathlib import Path

import dagster as dg
import inprocess
import pytest
from recorded_reads import Reads, new_reads, recorded_reads, undeclared_and_unread
from running_stack import Platform

import mlops_assets
from mlops_assets.core.keys import SEGMENT_STAGES

pytestmark = pytest.mark.long

SOLUTION = "employment"
TRAINING_DATE = "2017-01-01"
FOLDERS = ("census", "census_features", SOLUTION)
TRAINING = ("training_dataset", "model", "evaluation", "online_features", "deployment")


@pytest.fixture(scope="module")
def reads(platform: Platform) -> Reads:
    """What every asset read, from raw rows to the decision of the last year."""
    assets, reads = inprocess.load_assets(*FOLDERS), new_reads()
    data = [key.to_user_string() for asset in assets for key in asset.keys if key.path[-1] not in STAGES]
    years = (TRAINING_DATE, "2018-01-01")
    runs = [
        (data, "2015-01-01", "2018-01-01"),
        ([f"{SOLUTION}/{stage}" for stage in TRAINING], TRAINING_DATE, TRAINING_DATE),
        ([f"{SOLUTION}/{stage}" for stage in ("predictions", "outcomes")], *years),
        ([f"{SOLUTION}/{stage}" for stage in REPORTS], *years),
        ([f"{SOLUTION}/retraining_decision"], *years),
    ]
    with recorded_reads(reads):
        for keys, first, last in runs:
            result = inprocess.materialize(assets, keys, first=first, last=last, resources=platform.resources)
            assert result.success, (inprocess.failures(result), inprocess.failed_checks(result))
    return reads


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


def test_every_asset_declares_what_it_reads_and_reads_what_it_declares(reads: Reads) -> None:
    """The stages are those of `test_hostile_names.py`, which runs every one."""
    # Nothing was asked of a server.
    without = [dg.AssetKey([SOLUTION, "prediction_log"])]
    undeclared, unread = undeclared_and_unread(inprocess.load_assets(*FOLDERS), reads, without_table=without)
    assert (sorted(undeclared), sorted(unread)) == ([], [])
    assert {dg.AssetKey(["raw", "census"]), dg.AssetKey(["features", "census_statistics"])} <= set(reads)


def test_the_performance_estimated_without_labels_is_the_realised_one(platform: Platform, reads: Reads) -> None:
    """As that of flights in `test_flight_delay.py`, here in every year."""
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
