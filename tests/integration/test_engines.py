"""Both engines do the same work with the same results, on a real Ray cluster of three nodes whose raylets are killed."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import inprocess
import numpy as np
import pandas as pd
import pytest
from clinic_chain import Clinic, Registry
from evaluated_candidates import case
from optuna.storages import InMemoryStorage
from ray_cluster import GB, RayCluster, ray_processes, running_ray_cluster
from registry_database import new_registry_url
from waiting import wait_for

from mlops_assets.clients.signatures import Signer
from mlops_assets.core.keys import PERFORMANCE_REPORT
from mlops_assets.core.settings import PROCESS, RAY, Settings
from mlops_assets.engine.engine import Engine, ProcessEngine, open_engine
from mlops_assets.engine.ray_engine import ray_engine
from mlops_assets.lake.catalog_files import named_files
from mlops_assets.lake.datasets import find_dataset, rebuild_dataset
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.maintenance import LakePolicy, maintain_lake
from mlops_assets.lake.tables import counted_fingerprint, current_snapshot, table_exists
from mlops_assets.ml.cross_validation import ModelSpecification, ScoredFolds, TrainingRows
from mlops_assets.ml.folds import Fold
from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.pipeline import predict
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.search import Candidate, Dimension, SearchPlan, SearchResult, search
from mlops_assets.monitoring.monitor import monitors_of
from mlops_assets.monitoring.report_asset import build_report
from mlops_assets.predictions.outcomes import build_outcomes
from mlops_assets.predictions.predictions import build_predictions
from mlops_assets.schema.column_names import is_audit
from mlops_assets.training.exported_fit import fit_version
from mlops_assets.training.fitting import default_estimator
from mlops_assets.training.training_dataset import build_training_dataset

pytestmark = pytest.mark.long

BOOSTING = "sklearn.ensemble.HistGradientBoostingClassifier"
PLAN = SearchPlan(
    default=PipelineStep(BOOSTING, {"max_iter": 5}),
    candidates=[
        Candidate(PipelineStep(BOOSTING, {"max_iter": 5}), {"learning_rate": Dimension(0.01, 0.5, True, None)}),
        # Half of its configurations fail: `max_iter` has to be positive.
        Candidate(PipelineStep(BOOSTING, {}), {"max_iter": Dimension(-5, 5, False, None)}),
    ],
    trials=8,
    seconds=None,
    pruning=True,
    jobs=2,
    seed=0,
    greater_is_better=True,
)
ROWS = 2000
SLOW_PARTS = 200
SLOW_DRIVER = f"""
import pickle, sys, time
from contextlib import contextmanager
from datetime import date
from mlops_assets.engine.engine import open_engine
from mlops_assets.engine.table_parts import TableParts
from mlops_assets.lake.partition_range import PartitionRange

class Slow:
    @contextmanager
    def opened(self, connection, part):
        time.sleep(0.3)
        yield f"SELECT DATE '2020-01-01' AS day, {{part}} AS number"

lake, settings = pickle.loads(bytes.fromhex(sys.argv[1]))
days = PartitionRange("day", date(2020, 1, 1), date(2020, 1, 2))
rows = TableParts(rows=Slow(), parts=range({SLOW_PARTS}), table="slow.rows", partition_range=days, uncounted=None, counted="true")
with open_engine(settings.engine, settings) as engine, lake.connect(read_only=False) as connection:
    computed = rows.computed(engine, lake, connection, settings)
    lake.replace(connection, table=rows.table, query=computed, partition_range=days, author="test")
"""
"""A process that writes a table of parts which take a third of a second each."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with running_ray_cluster(memory=2 * GB) as running:
        yield running


@pytest.fixture
def engine(cluster: RayCluster) -> Iterator[Engine]:
    with ray_engine(cluster.address, memory=GB // 2) as engine:
        yield engine


def kill_when_written(marker: Path, cluster: RayCluster) -> threading.Thread:
    """Kill the raylet of the node whose id is written into `marker`."""

    def kill() -> None:
        wait_for(lambda: marker.exists() and marker.read_text())
        cluster.kill_raylet(marker.read_text())

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def dying_once(function: Callable, marker: Path) -> Callable:  # type: ignore[type-arg]
    """`function`, which names its node in `marker` the first time, and waits for its end."""

    def call(part: object) -> object:
        import ray

        if not marker.exists():
            marker.write_text(ray.get_runtime_context().get_node_id())
            time.sleep(120)
        return function(part)

    return call


def scored_folds() -> ScoredFolds:
    random = np.random.default_rng(7)
    schema = FeatureSchema(numeric=("a", "b"), categorical=())
    frame = pd.DataFrame({name: random.normal(size=ROWS).astype(np.float32) for name in schema.numeric})
    labels = ((frame["a"] + random.normal(size=ROWS)) > 0).to_numpy().astype(np.int64)
    specification = ModelSpecification("binary_classification", schema, numeric=None, categorical=None, seed=0)
    folds = [Fold(np.arange(0, end), np.arange(end, end + 200)) for end in (1000, 1200, 1400)]
    return ScoredFolds(specification, TrainingRows(frame, labels, weights=None, balanced=False), folds, "roc_auc", 0.5)


def run(engine: Engine, score: Callable, plan: SearchPlan) -> SearchResult:  # type: ignore[type-arg]
    def fold_scores(step: PipelineStep) -> Iterator[float]:
        return engine.map(score, ((step, number) for number in range(3)), in_flight=1)

    storage = InMemoryStorage()
    return search(plan, fold_scores, storage=storage, name="s", report=lambda *_: None, processors=engine.processors)


def test_a_search_is_that_of_this_process(engine: Engine) -> None:
    score, few = scored_folds().score, replace(PLAN, trials=4)
    there, here = run(engine, score, few), run(ProcessEngine(), score, replace(few, jobs=1))
    assert (len(there.trials), there.default.fold_scores) == (4, here.default.fold_scores)


def test_a_search_is_that_of_this_process_though_a_raylet_is_killed(engine: Engine, cluster: RayCluster, tmp_path: Path) -> None:
    score, one_at_once = scored_folds().score, replace(PLAN, jobs=1)
    killing = kill_when_written(tmp_path / "node", cluster)
    there = run(engine, dying_once(score, tmp_path / "node"), one_at_once)
    killing.join()
    cluster.restore()
    here = run(ProcessEngine(), score, one_at_once)
    assert [replace(trial, seconds=0) for trial in there.trials] == [replace(trial, seconds=0) for trial in here.trials]
    assert {trial.state for trial in there.trials} >= {"complete", "failed"}


@pytest.fixture
def large_tasks(cluster: RayCluster) -> Iterator[Engine]:
    with ray_engine(cluster.address, memory=2 * GB) as engine:
        yield engine


def test_both_fits_of_a_version_are_those_of_this_process(large_tasks: Engine) -> None:
    chosen = case("binary_classification")
    solution = chosen.inputs.solution
    inputs = replace(
        chosen.inputs, solution=solution.model_copy(update={"training": solution.training.model_copy(update={"refit": True})})
    )
    there, here = (
        fit_version(inputs, chosen.train, chosen.holdout, default_estimator(inputs), engine=each)
        for each in (large_tasks, ProcessEngine())
    )
    for sent, own in zip(there, here, strict=True):
        assert (sent.fitted.estimator, sent.rows) == (own.fitted.estimator, own.rows)
        # A processor more or less changes the last digits of a fit.
        frame = to_frame(chosen.holdout, own.schema)
        scores = [predict(fit.fitted.pipeline, frame, solution.problem) for fit in (sent, own)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
        assert sent.precision.largest_difference < 1e-5
    assert there[0].exported.content != there[1].exported.content


def test_results_come_in_order_and_no_more_parts_begin_than_are_allowed(engine: Engine) -> None:
    asked = []

    def parts() -> Iterator[int]:
        for part in range(9):
            asked.append(part)
            yield part

    def slower_at_first(part: int) -> int:
        time.sleep(0.3 if part == 0 else 0)
        return part * 2

    results = engine.map(slower_at_first, parts(), in_flight=3)
    assert next(results) == 0
    assert asked == [0, 1, 2]
    assert list(results) == [part * 2 for part in range(1, 9)]
    assert list(ProcessEngine().map(slower_at_first, range(3), in_flight=3)) == [0, 2, 4]


def test_an_error_is_that_of_the_function(engine: Engine) -> None:
    def failing(part: int) -> None:
        raise KeyError(f"part {part}")

    for chosen in (engine, ProcessEngine()):
        with pytest.raises(KeyError, match="part 4"):
            list(chosen.map(failing, [4], in_flight=1))


def test_a_task_gets_no_more_memory_than_its_own(engine: Engine) -> None:
    with pytest.raises(MemoryError):
        list(engine.map(lambda size: len(bytearray(size)), [GB], in_flight=1))
    assert list(engine.map(lambda size: len(bytearray(size)), [GB // 16], in_flight=1)) == [GB // 16]


def test_a_task_that_fits_on_no_node_is_refused(engine: Engine, cluster: RayCluster) -> None:
    # In a process of its own: one has one connection.
    script = (
        "from mlops_assets.engine.ray_engine import ray_engine\n"
        f"with ray_engine({cluster.address!r}, memory={4 * GB}) as engine: engine.processors"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "A task may use 4 GB, and no node of the Ray cluster" in answer.stderr
    assert "Lower MLOPS_TASK_MEMORY_GB" in answer.stderr


def test_a_killed_driver_leaves_no_cluster_of_its_own(tmp_path: Path) -> None:
    script = (
        "import pathlib, time\n"
        "from mlops_assets.core.settings import Settings\n"
        "from mlops_assets.engine.engine import open_engine\n"
        f"with open_engine('ray', Settings(home=pathlib.Path('/nowhere'), task_memory_gb=1)) as engine:\n"
        f"    pathlib.Path({str(tmp_path / 'begun')!r}).write_text(str(list(engine.map(abs, [-1], in_flight=1))))\n"
        "    time.sleep(120)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script])
    wait_for(lambda: (tmp_path / "begun").exists())
    assert ray_processes(f"_{driver.pid}/")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not ray_processes(f"_{driver.pid}/"))


def test_an_address_is_enough_for_searches_and_ray_is_not_started_before_it_is_needed() -> None:
    assert Settings(home=Path("/"), ray_address="host:6379").search_engine == RAY
    assert Settings(home=Path("/"), ray_address="host:6379").engine == PROCESS
    with open_engine(RAY, Settings(home=Path("/"), ray_address="192.0.2.99:1")) as engine:
        assert not engine.shares_process


@pytest.fixture(scope="module")
def clinic(make_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A clinic with a champion; no row is scored."""
    home = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        registry = Registry(new_registry_url(home), "", Signer(home / "signing_key"))
        clinic = Clinic("binary_classification", make_lake(), registry, Settings(home=home / "home"))
        clinic.train("2020-02-10")
        yield clinic


def on(cluster: RayCluster, settings: Settings, part_values: int) -> Settings:
    return replace(settings, engine=RAY, ray_address=cluster.address, task_memory_gb=1, part_values=part_values)


def score(clinic: Clinic, settings: Settings) -> dict[str, object]:
    """Score all days, and return what the materialization tells."""
    result = inprocess.materialize(
        [build_predictions(clinic.inputs)],
        [f"{clinic.name}/predictions"],
        first="2020-01-01",
        last="2020-03-30",
        resources={"lake": clinic.lake, "registry": clinic.registry, "settings": settings},
        instance=clinic.instance,
    )
    assert result.success, inprocess.failures(result)
    metadata = [event.materialization.metadata for event in result.get_asset_materialization_events()]
    return {name: value.value for name, value in metadata[-1].items()}


def part_files(lake: Lake) -> set[str]:
    return {path.name for path in lake.data_directory.rglob("part-*.parquet")}


def test_predictions_are_those_of_this_process_though_a_raylet_is_killed(clinic: Clinic, cluster: RayCluster) -> None:
    table, lake = f"lake.{clinic.name}.predictions", clinic.lake
    here = score(clinic, clinic.settings)
    with lake.connect(read_only=False) as connection:
        expected = counted_fingerprint(connection, table)
        partitions = connection.execute(f"FROM {table} ORDER BY ALL").to_arrow_table()
        connection.execute(f"DROP TABLE {table}; DROP VIEW IF EXISTS lake.{clinic.name}.all_predictions")
        before = current_snapshot(connection)

    def kill() -> None:
        wait_for(lambda: part_files(lake))
        cluster.kill_raylet()
        written.append(len(part_files(lake)))

    written: list[int] = []
    killing = threading.Thread(target=kill)
    killing.start()
    there = score(clinic, on(cluster, clinic.settings, part_values=100))
    killing.join()
    cluster.restore()
    with lake.connect(read_only=True) as connection:
        assert counted_fingerprint(connection, table) == expected
        columns = [column for column in partitions.column_names if not is_audit(column)]
        assert connection.execute(f"FROM {table} ORDER BY ALL").to_arrow_table().select(columns) == partitions.select(columns)
        # One transaction for all parts; the other is that of the view of all predictions.
        assert current_snapshot(connection) == before + 2
        with lake.catalog_cursor() as cursor:
            registered = {name.rpartition("/")[2] for name in named_files(cursor)} & part_files(lake)
        assert written[0] < len(registered)
        assert len(registered) > 40
    assert {name: there[name] for name in ("fingerprint", "dagster/row_count")} == {
        name: here[name] for name in ("fingerprint", "dagster/row_count")
    }

    # A second time nothing is new: its files are gone.
    left = part_files(lake)
    assert score(clinic, on(cluster, clinic.settings, part_values=1000))["rows_scored_again"] == 0
    assert part_files(lake) == left


def test_a_report_on_windows_is_that_of_this_process(clinic: Clinic, cluster: RayCluster) -> None:
    [monitor] = [each for each in monitors_of(clinic.inputs.solution) if each.stage == PERFORMANCE_REPORT]
    assets = [build_predictions(clinic.inputs), build_outcomes(clinic.inputs), build_report(clinic.inputs, monitor)]
    settings = {"here": clinic.settings, "there": on(cluster, clinic.settings, part_values=100_000)}
    reports = {}
    for name, of_run in settings.items():
        resources = {"lake": clinic.lake, "registry": clinic.registry, "settings": of_run}
        stages = {"predictions": ("2020-03-01", "2020-03-30"), "outcomes": ("2020-03-01", "2020-03-30")}
        stages[PERFORMANCE_REPORT] = ("2020-03-02", "2020-03-23")
        for stage, (first, last) in stages.items():
            key = f"{clinic.name}/{stage}"
            result = inprocess.materialize(assets, [key], first=first, last=last, resources=resources, instance=clinic.instance)
            assert result.success, inprocess.failures(result)
        with clinic.lake.connect(read_only=False) as connection:
            table = f"lake.{clinic.name}.{PERFORMANCE_REPORT}"
            reports[name] = connection.execute(f"FROM {table} ORDER BY ALL").to_arrow_table()
            connection.execute(f"DELETE FROM {table}")
    columns = [column for column in reports["here"].column_names if not is_audit(column)]
    assert reports["there"].select(columns) == reports["here"].select(columns)
    assert len(set(reports["here"].column("window_start").to_pylist())) == 4
    assert any(value is not None for value in reports["here"].column("realised").to_pylist())


def make_dataset(clinic: Clinic, settings: Settings, training_date: str) -> dict[str, object]:
    """Make a training dataset, and return what the materialization tells."""
    result = inprocess.materialize(
        [build_training_dataset(clinic.inputs)],
        [f"{clinic.name}/training_dataset"],
        first=training_date,
        last=training_date,
        resources={"lake": clinic.lake, "settings": settings},
        instance=clinic.instance,
    )
    assert result.success, inprocess.failures(result)
    [event] = result.get_asset_materialization_events()
    return {key: value.value for key, value in event.materialization.metadata.items()}


def test_a_training_dataset_is_that_of_this_process(clinic: Clinic, cluster: RayCluster) -> None:
    before = part_files(clinic.lake)
    made = {
        name: make_dataset(clinic, settings, "2020-03-10")
        for name, settings in (("there", on(cluster, clinic.settings, part_values=200)), ("here", clinic.settings))
    }
    assert made["there"]["changed"]
    # The rows are those that were there already: it changes nothing.
    assert not made["here"]["changed"]
    for key in ("fingerprint", "dagster/row_count", "rows_by_split"):
        assert made["here"][key] == made["there"][key]
    assert len(part_files(clinic.lake) - before) > 10
    with clinic.lake.connect(read_only=False) as connection:
        rebuild_dataset(
            connection, find_dataset(connection, f"{clinic.name}.training_dataset", str(made["there"]["fingerprint"]))
        )


def test_a_training_dataset_is_that_of_this_process_though_a_raylet_is_killed(clinic: Clinic, cluster: RayCluster) -> None:
    before, written = part_files(clinic.lake), list[int]()

    def kill() -> None:
        wait_for(lambda: part_files(clinic.lake) - before)
        cluster.kill_raylet()
        written.append(len(part_files(clinic.lake) - before))

    killing = threading.Thread(target=kill)
    killing.start()
    there = make_dataset(clinic, on(cluster, clinic.settings, part_values=100), "2020-03-17")
    killing.join()
    cluster.restore()
    assert written[0] < len(part_files(clinic.lake) - before), "the raylet was to die in the middle"
    assert there["changed"]
    here = make_dataset(clinic, clinic.settings, "2020-03-17")
    assert not here["changed"]
    assert here["fingerprint"] == there["fingerprint"]


def test_a_killed_driver_leaves_orphans_at_most_and_no_task(
    make_lake: Callable[[], Lake], cluster: RayCluster, tmp_path: Path
) -> None:
    lake, settings = make_lake(), on(cluster, Settings(home=tmp_path), part_values=1)
    sent = pickle.dumps((lake, settings)).hex()
    driver = subprocess.Popen([sys.executable, "-c", SLOW_DRIVER, sent])
    wait_for(lambda: len(part_files(lake)) > 2)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()

    def has_stopped() -> bool:
        before = part_files(lake)
        time.sleep(2)
        return part_files(lake) == before

    wait_for(has_stopped)
    left = part_files(lake)
    assert len(left) < SLOW_PARTS
    with lake.connect(read_only=True) as connection:
        assert not table_exists(connection, "slow.rows")
    policy = LakePolicy(kept_days=30, traced_days=365, grace_hours=0)
    kept = maintain_lake(lake, replace(policy, grace_hours=24), now=datetime.now(UTC), dry_run=False, report=lambda _: None)
    assert (kept.orphans, part_files(lake)) == ([], left)
    removed = maintain_lake(lake, policy, now=datetime.now(UTC), dry_run=False, report=lambda _: None)
    assert {Path(name).name for name in removed.orphans} >= left
    assert part_files(lake) == set()
