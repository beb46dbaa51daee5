"""A solution whose features have the most awkward names, from the training dataset to the reports: every value is where it belongs.

Everything is real but the dbt models, whose tables the test writes itself: lake on Postgres, registry in MLflow, store in LMDB, event
stream in NATS.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pytest
from catalogue_reasons import WITHOUT_COLUMNS
from documented_pieces import write_modules
from nats_server import NatsServer
from recorded_reads import Reads, new_reads, recorded_reads, undeclared_and_unread
from registry_database import new_registry_url

from mlops_assets.clients.event_stream import PREDICTIONS, subject
from mlops_assets.clients.model_registry import ModelRegistry, RegisteredModel
from mlops_assets.clients.publishing import Message
from mlops_assets.clients.signatures import Signer
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.challenger import build_challenger
from mlops_assets.deployment.deployment import build_deployment, load_champions
from mlops_assets.feature_store.registry import DbtModel, FeatureRegistry, FeatureView
from mlops_assets.feature_store.statistics import statistics_query
from mlops_assets.features.online_features import build_online_features
from mlops_assets.features.online_push import push_view
from mlops_assets.lake.datasets import find_dataset, rebuild_dataset
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import column_types, current_snapshot
from mlops_assets.monitoring.alerts import alert_rows, find_alerts
from mlops_assets.monitoring.monitor import monitors_of
from mlops_assets.monitoring.monitored_windows import load_monitored_version, stage_rows, windows_from_keys
from mlops_assets.monitoring.monitoring_report import build_monitoring_report
from mlops_assets.monitoring.report_asset import build_report
from mlops_assets.monitoring.report_pages import report_path
from mlops_assets.monitoring.retraining_decision import build_retraining_decision
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.store import FeatureRequest
from mlops_assets.operations.realised_comparison import compare_realised
from mlops_assets.operations.trial import compare_versions
from mlops_assets.predictions.outcomes import build_outcomes
from mlops_assets.predictions.prediction_log import build_prediction_log
from mlops_assets.predictions.predictions import build_predictions
from mlops_assets.schema.column_names import COUNTED, GENERATION, RESERVED, SCORED_BECAUSE, SCORED_BY, TRAINED_ON, fold
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.contract import Contract
from mlops_assets.serving.prediction_record import encode_record
from mlops_assets.serving.requests import RequestDecoder
from mlops_assets.serving.scorer import Scorer
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import read_contract
from mlops_assets.training.evaluation import build_evaluation
from mlops_assets.training.model import build_model
from mlops_assets.training.training_dataset import build_training_dataset

NUMBERS = [
    # Aliases, columns and parameters of the platform's own SQL, today or before.
    *(
        "s",
        "t",
        "p",
        "v",
        "w",
        "v0",
        "rows",
        "view",
        "version",
        "reason",
        "row",
        "request_id",
        "features",
        "index",
        "label",
        "window",
    ),
    *(
        "count",
        "window_start",
        "feature",
        "change",
        "change_type",
        "rowid",
        "snapshot_id",
        "start",
        "partition",
        "segment",
        "_row",
    ),
    *(
        "_label",
        "_score",
        "_partition",
        "_net",
        "_window",
        "_reason",
        "key",
        "chunk",
        "period",
        "described",
        "matured",
        "low",
        "bins",
    ),
    # Words of SQL, and what has to be quoted somewhere.
    *("select", "from", "Mixed Case", "it's", "a.b", "100 %", "{braces}", "[x]", "a:b,c", "naïve", "$x$", "a|b", "<b>"),
    *("-", "0", "x" * 128, "value_1", "channel_1"),
]
TEXTS = ["text", "Größe", "{0} = text"]
REQUEST, DERIVED = ["n", "where", "a 'b'"], "plus"
WINDOWS = ["2020-03-02", "2020-03-09"]
FIRST, TRAINING_DATE, END = date(2020, 1, 1), date(2020, 3, 1), date(2020, 3, 16)
PLACES, ROWS = 12, 30
SEGMENT_VALUE = "105"


def number(position: int, place: str, day: str) -> str:
    """SQL for the value of a numeric feature: another one for each feature, so that no two can be mixed up."""
    return f"(({place} * 7 + {day} * 3) % 11 + {position} * 100)"


def model(name: str, table: str, columns: dict[str, str], partition_column: str | None) -> DbtModel:
    return DbtModel(name, table, "", columns, dict.fromkeys(columns, "described"), partition_column)


VIEW_TABLE, SPINE_TABLE = "features.SELECT", "hostile.Order"
"""The tables of dbt models. Dagster takes letters, digits and underscores in the keys of their assets: the words of SQL are left."""

VIEW = FeatureView(
    model=model(
        "load",
        VIEW_TABLE,
        {
            "place": "varchar",
            "moment": "timestamptz",
            "day": "date",
            **dict.fromkeys(NUMBERS, "bigint"),
            **dict.fromkeys(TEXTS, "varchar"),
        }
        | {"_loaded_at": "timestamptz"},
        "day",
    ),
    version=1,
    entity=("place",),
    event_timestamp="moment",
    freshness_days=30,
    owner=None,
)
SPINE = model(
    "spine",
    SPINE_TABLE,
    {"id": "bigint", "day": "date", "at_time": "timestamptz", "place": "varchar", **dict.fromkeys(REQUEST, "bigint")}
    | {"was late": "bigint", "known_at": "timestamptz"},
    "day",
)
DECLARED = {
    "name": "hostile",
    "description": "",
    "owners": ["team:test"],
    "problem": "binary_classification",
    "partitions": {"column": "day", "start": FIRST, "end": END},
    "spine": {"model": "spine", "key": "id", "prediction_time": "at_time", "label": "was late", "label_time": "known_at"},
    "features": [{"view": "load"}, {"request": REQUEST}, {"derived": {DERIVED: '"where" + n'}}],
    "training": {
        "window": "60d",
        "holdout": "14d",
        "metric": "roc_auc",
        "estimator": {"type": "sklearn.ensemble.HistGradientBoostingClassifier", "parameters": {"max_iter": 5}},
        # There are too few rows for half of them to beat a constant.
        "histories": [],
    },
    "checks": {"minimum_rows": 100},
    # How fast a busy machine predicts is not what is tested.
    "gates": {"slices": ["Größe", "[x]"], "groups": {"log_loss": 5.0}, "maximum_latency_milliseconds": 60_000},
    "monitoring": {
        "attribution": {"rows": 100},
        "groups": {"columns": ["Größe"], "maximum_difference": {"log_loss": 5.0}, "minimum_rows": 30},
        "own": {
            "my_team.monitors:ceiling": {"score": 0.0, "maximum": 0.5},
            "my_team.monitors:population_stability": {"column": '"where"'},
        },
    },
    "retraining": {"bad_windows": "2 of 2"},
    "segments": {"column": "n", "values": [SEGMENT_VALUE]},
    "serving": {"shadow": True},
}


class LocalRegistry(ModelRegistry):
    """MLflow's database without its server, which pages would link to. It counts what is downloaded."""

    downloads: ClassVar[list[str]] = []

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        self.downloads.append(path)
        return super().download(run_id, path, folder)

    def run_url(self, run_id: str) -> str:
        return f"http://mlflow/{run_id}"

    def version_url(self, model: RegisteredModel) -> str:
        return f"http://mlflow/{model.version}"


TRAINING = (build_training_dataset, build_model, build_evaluation)
SEGMENT_TRAINING = (build_model, build_evaluation)
SERVING = (build_online_features, build_deployment, build_challenger)
SCORING = (build_predictions, build_prediction_log, build_outcomes)


def reports(inputs: SolutionInputs) -> list[Callable[[SolutionInputs], dg.AssetsDefinition]]:
    """The reports of the monitors, the team's too, and the page."""
    return [*(partial(build_report, of_solution=each) for each in monitors_of(inputs.solution)), build_monitoring_report]


@dataclass(frozen=True)
class World:
    inputs: SolutionInputs
    lake: Lake
    settings: Settings
    registry: ModelRegistry
    store: LmdbStore
    instance: dg.DagsterInstance
    reads: Reads

    @property
    def segments(self) -> SolutionInputs:
        assert self.inputs.of_segments is not None
        return self.inputs.of_segments

    @property
    def assets(self) -> list[dg.AssetsDefinition]:
        of_segments = [build(self.segments) for build in (*SEGMENT_TRAINING, build_deployment)]
        builders = (*TRAINING, *SERVING, *SCORING, *reports(self.inputs), build_retraining_decision)
        return [*(build(self.inputs) for build in builders), *of_segments]

    def make(
        self,
        *builders: Callable[[SolutionInputs], dg.AssetsDefinition],
        first: str | None,
        last: str | None = None,
        inputs: SolutionInputs | None = None,
    ) -> None:
        assets = [build(inputs or self.inputs) for build in builders]
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last} if first and last else {}
        with recorded_reads(self.reads):
            result = dg.materialize(
                assets,
                resources={"lake": self.lake, "settings": self.settings, "registry": self.registry, "online_store": self.store},
                instance=self.instance,
                raise_on_error=False,
                partition_key=first if not last else None,
                tags=tags,
                selection=[key for asset in assets for key in asset.keys],
            )
        assert result.success, [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
        failed = {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}
        assert failed <= {
            "latency",
            "window_rows",
            "labels_matured",
            "performance",
            "estimate_agrees",
            "ceiling",
            "groups",
            "attribution",
        }, failed

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.lake.connect(read_only=True) as connection:
            return connection.execute(query).fetchall()

    def columns(self, table: str) -> list[str]:
        with self.lake.connect(read_only=True) as connection:
            return list(column_types(connection, f"lake.{table}"))


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats") / "nats")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module", autouse=True)
def my_team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The monitors of docs/extend.md, importable."""
    folder = tmp_path_factory.mktemp("project")
    write_modules(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture(scope="module")
def world(make_lake: Callable[[], Lake], nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The solution from raw values to reports on two weeks."""
    registry = FeatureRegistry(models={"spine": SPINE}, views={("load", 1): VIEW})
    home = tmp_path_factory.mktemp("home")
    lake = make_lake()
    with lake.connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA features; CREATE SCHEMA hostile")
        numbers = ", ".join(f"{number(each, 'p', 'd')} AS {quote(name)}" for each, name in enumerate(NUMBERS, 1))
        texts = ", ".join(f"'t' || ((p + d) % 3 + {10 * each}) AS {quote(name)}" for each, name in enumerate(TEXTS, 1))
        connection.execute(
            f"CREATE TABLE {lake_name(VIEW_TABLE)} AS "
            "SELECT 'p' || p AS place, TIMESTAMPTZ '2020-01-01 00:00:00+00' + INTERVAL 1 DAY * d AS moment, "
            f"DATE '{FIRST}' + d::INTEGER AS day, {numbers}, {texts}, now() AS _loaded_at "
            f"FROM range({(END - FIRST).days}) a(d), range({PLACES}) b(p)"
        )
        requested = ", ".join(f"(i * {each} + d) % 13 + {100 * each} AS {quote(name)}" for each, name in enumerate(REQUEST, 1))
        connection.execute(
            f"CREATE TABLE {lake_name(SPINE_TABLE)} AS SELECT d * 1000 + i AS id, DATE '{FIRST}' + d::INTEGER AS day, "
            f"TIMESTAMPTZ '2020-01-01 06:00:00+00' + INTERVAL 1 DAY * d + INTERVAL 1 MINUTE * i AS at_time, 'p' || (i % {PLACES}) AS place, "
            f'{requested}, CAST((i * 37 + d * 11) % 100 < 20 + 5 * (i % {PLACES}) AS BIGINT) AS "was late", '
            f"TIMESTAMPTZ '2020-01-01 20:00:00+00' + INTERVAL 1 DAY * d AS known_at FROM range({(END - FIRST).days}) a(d), range({ROWS}) b(i)"
        )
    with dg.DagsterInstance.ephemeral() as instance:
        made = World(
            inputs=resolve_inputs(Solution.model_validate(DECLARED), registry),
            lake=lake,
            settings=Settings(home=home, nats_url=nats_server.url),
            registry=LocalRegistry(url=new_registry_url(home), token="", signer=Signer(home / "signing_key")),
            store=LmdbStore(home / "store"),
            instance=instance,
            reads=new_reads(),
        )
        made.registry.client.create_experiment("hostile", artifact_location=f"file://{home}/artifacts")
        made.make(*TRAINING, first=TRAINING_DATE.isoformat())
        of_segment = dg.MultiPartitionKey({"training_date": TRAINING_DATE.isoformat(), "segment": SEGMENT_VALUE})
        made.make(*SEGMENT_TRAINING, first=of_segment, inputs=made.segments)
        made.make(build_online_features, first=None)
        # Before its promotion: then it is no challenger any more.
        made.make(build_challenger, first=None)
        made.make(build_deployment, first=TRAINING_DATE.isoformat())
        log_online_predictions(made, nats_server)
        made.make(build_prediction_log, first=None)
        made.make(build_predictions, build_outcomes, first="2020-03-01", last="2020-03-15")
        made.make(*reports(made.inputs), first=WINDOWS[0], last=WINDOWS[1])
        made.make(build_retraining_decision, first="2020-03-09")
        # In the end: what was predicted above is of the version that was trained on all rows.
        made.make(build_deployment, first=of_segment, inputs=made.segments)
        yield made


def log_online_predictions(world: World, nats: NatsServer) -> None:
    """What the online server answers on 14 March for each place, and what a challenger in the shadow predicts, sent as the server does."""
    bundle = load_champions(world.instance, world.registry, world.settings, world.inputs).default
    decoder, scorer = RequestDecoder(bundle.contract), Scorer(bundle, world.store)
    bodies = [
        {"id": 900 + place, "place": f"p{place}", **{name: 100 * each + 5 for each, name in enumerate(REQUEST, 1)}}
        for place in range(PLACES)
    ]
    rows = decoder.decode(json.dumps(bodies).encode(), datetime(2020, 3, 15, 6, tzinfo=UTC))
    assert isinstance(rows, list)
    records = [
        scored.record(solution="hostile", channel="online", role=role, answered=answered, request_id=str(each), caller=None)
        for each, scored in enumerate(scorer.score(rows))
        for role, answered in (("champion", True), ("challenger", False))
    ]
    nats.run(
        lambda stream: stream.publish(
            [Message(subject(PREDICTIONS, "hostile"), record.prediction_id, encode_record(record)) for record in records]
        )
    )


def mistakes(table: str, where: str) -> str:
    """SQL that counts the values of `table` that are not those of the view at the row's prediction time, for each feature."""
    wrong = ", ".join(f"count(*) FILTER (f.{quote(name)} IS DISTINCT FROM t.{quote(name)})" for name in (*NUMBERS, *TEXTS))
    return (
        f"SELECT count(*), {wrong} FROM lake.{table} t JOIN {lake_name(VIEW_TABLE)} f "
        f"ON f.place = t.place AND f.day = CAST(t.at_time AT TIME ZONE 'UTC' AS DATE) WHERE {where}"
    )


def test_work_is_done_once(world: World) -> None:
    """What this machine wrote is not downloaded from MLflow, and the reports read one staging of their windows."""
    assert LocalRegistry.downloads == []
    assert len(list((world.settings.staged_windows_directory / "hostile").iterdir())) == 1


def test_monitors_of_a_team_are_written_alert_and_speak_for_a_training(world: World) -> None:
    rows = world.rows('SELECT window_start, subject, value, "limit", alert FROM hostile.ceiling_report ORDER BY ALL')
    assert [(str(day), *rest) for day, *rest in rows] == [(day, "score", 1.0, 0.5, True) for day in WINDOWS]
    stable = world.rows("SELECT window_start, subject, value, alert FROM hostile.population_stability_report ORDER BY ALL")
    assert [(str(day), subject) for day, subject, *_ in stable] == [(day, '"where"') for day in WINDOWS]
    assert all(0 < value < 0.2 and not alert for *_, value, alert in stable)
    page = report_path(world.settings, "hostile", WINDOWS[1]).read_text()
    assert "<h2>Ceiling</h2>" in page
    assert "100.0% of the predictions have 0 or more" in page
    assert "ceiling_report?partition=2020-03-09" in page
    [(reason, bad)] = world.rows("SELECT reason, bad_windows FROM hostile.retraining_decision")
    assert "2020-03-02: ceiling of score 100.0% of the predictions have 0 or more" in reason
    assert bad == 2
    with world.lake.connect(read_only=True) as connection:
        windows = windows_from_keys(world.inputs, [WINDOWS[1]])
        stage_rows(connection, world.settings, world.inputs, windows)
        versions = {1: load_monitored_version(world.inputs, world.registry, world.settings, 1)}
        alerts = find_alerts(connection, world.inputs, WINDOWS[1], versions)
        [ceiling] = [alert for alert in alerts if alert.source == "ceiling"]
        assert len(alert_rows(connection, world.inputs, WINDOWS[1], ceiling, limit=5)) == 5


def test_groups_are_compared_in_every_window_and_before_a_deployment(world: World) -> None:
    rows = world.rows("SELECT window_start, subject, value, sentence FROM hostile.groups_report ORDER BY ALL")
    groups = {subject.partition(" where ")[2] for _, subject, *_ in rows}
    assert len(groups) > 1
    assert all(group.startswith("Größe = ") for group in groups)
    assert {str(day) for day, *_ in rows} == set(WINDOWS)
    losses = [sentence for _, subject, value, sentence in rows if subject.startswith("log_loss") and value is not None]
    assert losses
    assert all(" of the others: difference " in sentence and ", ratio " in sentence for sentence in losses)
    assert "groups_report?partition=2020-03-09" in report_path(world.settings, "hostile", WINDOWS[1]).read_text()
    key = dg.AssetCheckKey(world.inputs.key("evaluation"), "group_differences")
    execution = world.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert execution.event is not None
    assert execution.event.asset_check_evaluation is not None
    assert execution.event.asset_check_evaluation.metadata["groups_compared"].value == len(groups)


def test_what_the_model_leans_on_is_compared_in_every_window(world: World) -> None:
    rows = world.rows(
        "SELECT window_start, count(*), count(value), count(DISTINCT subject) FROM hostile.attribution_report GROUP BY 1 ORDER BY 1"
    )
    features = len([*NUMBERS, *TEXTS, *REQUEST, DERIVED])
    assert [(str(day), *counts) for day, *counts in rows] == [(day, features, features, features) for day in WINDOWS]


def test_a_challenger_is_compared_with_its_champion_by_what_the_servers_logged(world: World) -> None:
    def contract(version: int) -> Contract:
        return read_contract(world.registry, world.settings, world.registry.get("hostile", version))

    with world.lake.connect(read_only=True) as connection:
        [entry] = compare_versions(connection, "hostile")
        assert (entry["requests"], entry["largest_difference"]) == (PLACES, 0.0)
        versions = {role: entry[role] for role in ("champion", "challenger")}
        compared = compare_realised(connection, world.inputs, contract, **versions)
    # The spine has no row of these requests.
    assert compared.obstacle == "no label of these requests is known yet, as hostile/outcomes has it"


def test_the_training_dataset_has_each_feature_under_its_name(world: World) -> None:
    data = [
        *("id", "day", "at_time", "was late", "known_at", "place"),
        *REQUEST,
        DERIVED,
        *NUMBERS,
        *TEXTS,
        "_load_event_timestamp",
    ]
    assert sorted(world.columns("hostile.training_dataset")) == sorted(["training_date", "split", *data])
    [(rows, *wrong)] = world.rows(mistakes("hostile.training_dataset", "true"))
    assert rows > 1500
    assert not any(wrong)
    assert world.rows("SELECT DISTINCT split FROM hostile.training_dataset ORDER BY 1") == [("holdout",), ("train",)]
    assert world.rows('SELECT count(*) FROM hostile.training_dataset WHERE plus <> "where" + n') == [(0,)]


def test_a_training_dataset_is_rebuilt(world: World) -> None:
    with world.lake.connect(read_only=False) as connection:
        dataset = find_dataset(connection, "hostile.training_dataset", "")
        assert rebuild_dataset(connection, dataset) == dataset.fingerprint


def test_every_stage_declares_what_it_reads_and_reads_what_it_declares(world: World) -> None:
    undeclared, unread = undeclared_and_unread(world.assets, world.reads, without_table=[])
    assert (sorted(undeclared), sorted(unread)) == ([], [])
    assert world.reads.keys() == {key for asset in world.assets for key in asset.keys}


def test_every_column_of_every_table_says_which_columns_it_comes_from(world: World) -> None:
    """Each is a column that there is, of a table that the asset declares to read."""
    specs = {spec.key: spec for asset in world.assets for spec in asset.specs}
    constant: dict[str, set[str]] = {}
    columns = cache(world.columns)
    for key, spec in specs.items():
        event = world.instance.get_latest_materialization_event(key)
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        assert ("dagster/column_lineage" in metadata) == (key.path[-1] not in WITHOUT_COLUMNS), key
        if key.path[-1] in WITHOUT_COLUMNS:
            continue
        lineage = metadata["dagster/column_lineage"].value.deps_by_column
        assert set(lineage) == {column.name for column in metadata["dagster/column_schema"].value.columns}
        declared = {dependency.asset_key for dependency in spec.deps}
        for source in {(dep.asset_key, dep.column_name) for deps in lineage.values() for dep in deps}:
            assert source[0] in declared, (key, source)
            assert source[1] in columns(".".join(source[0].path)), (key, source)
        constant[key.path[-1]] = {name for name, deps in lineage.items() if not deps}
    # What is decided by the step itself, or comes with a request; the columns of the log are in the request otherwise.
    of_the_step = {"model_version", "channel", "role", "feature_views", "_source_snapshot"}
    with_the_request = {"prediction_id", "served_at", "_view_snapshots", "id", "day", "at_time", "place", *REQUEST, DERIVED}
    of_a_generation = {GENERATION, COUNTED, TRAINED_ON, SCORED_BY, SCORED_BECAUSE}
    assert constant.pop("predictions") == of_the_step | of_a_generation
    for log in ("prediction_log", "shadow_predictions"):
        assert constant.pop(log) == (of_the_step - {"_source_snapshot"}) | with_the_request
    assert constant.pop("evaluation") == constant.pop("segment_evaluation") == {"model_version"}
    assert not any(constant.values()), constant


@pytest.mark.parametrize("channel", ["batch", "online"])
def test_predictions_have_each_feature_under_its_name(world: World, channel: str) -> None:
    ours = RESERVED["predictions"]
    data = {"id", "day", "at_time", "place", *REQUEST, DERIVED, *NUMBERS, *TEXTS, "_load_event_timestamp"}
    for table in ("predictions", "prediction_log", "shadow_predictions", "all_predictions"):
        assert {name for name in world.columns(f"hostile.{table}") if name not in ours} == data
    [(rows, *wrong)] = world.rows(mistakes("hostile.all_predictions", f"channel = '{channel}'"))
    assert rows == (15 * ROWS if channel == "batch" else PLACES)
    assert not any(wrong)
    assert world.rows(f"SELECT DISTINCT role FROM hostile.all_predictions WHERE channel = '{channel}'") == [("champion",)]


def test_outcomes_and_evaluation_have_their_columns(world: World) -> None:
    for table, ours, data in (
        ("outcomes", "outcomes", {"day", "id", "at_time", "was late", "known_at", "Größe", "[x]"}),
        ("evaluation", "evaluation", {"id", "at_time", "was late"}),
        ("segment_evaluation", "evaluation", {"id", "at_time", "was late"}),
    ):
        assert {name for name in world.columns(f"hostile.{table}") if name not in RESERVED[ours]} == data
    assert world.rows("SELECT count(*), count(*) FILTER (matured) FROM hostile.outcomes WHERE channel = 'batch'") == [(450, 450)]


def test_reports_name_every_feature_and_find_nothing_that_is_not_there(world: World) -> None:
    features = {*NUMBERS, *TEXTS, *REQUEST, DERIVED}
    drift = world.rows(
        "SELECT feature, bool_or(alert) FROM hostile.drift_report WHERE slice IS NULL AND kind = 'feature' GROUP BY 1"
    )
    assert {feature for feature, _ in drift} == features
    assert not {feature for feature, alert in drift if alert}
    quality = world.rows(
        "SELECT feature, \"check\", bool_or(alert) FROM hostile.data_quality_report WHERE feature <> '*' GROUP BY ALL"
    )
    assert {feature for feature, _, _ in quality} == features
    assert not {each for each in quality if each[2]}
    assert world.rows(
        "SELECT count(*) FROM hostile.performance_report WHERE estimated IS NULL AND metric = 'roc_auc' AND slice IS NULL"
    ) == [(0,)]
    page = (world.settings.reports_directory / "hostile" / "window-2020-03-09.html").read_text()
    # The view is watched where it is made, to which the page leads.
    assert "/assets/features/SELECT" in page


def test_statistics_describe_every_feature(world: World) -> None:
    with world.lake.connect(read_only=True) as connection:
        types = column_types(connection, lake_name(VIEW_TABLE))
        for starts in (["2020-01-01", "2020-01-02", "2020-01-03"], ["2020-01-01", "2020-01-15", "2020-02-01"]):
            query = statistics_query(VIEW, types=types, starts=starts)
            found = connection.execute(f"SELECT feature, min(minimum), sum(rows) FROM ({query}) GROUP BY 1").fetchall()
            assert {feature for feature, *_ in found} == {*NUMBERS, *TEXTS}
            for feature, minimum, _ in found:
                if feature in NUMBERS:
                    assert minimum // 100 == NUMBERS.index(feature) + 1


def test_a_correction_of_each_feature_reaches_the_online_store_and_nothing_else_does(world: World) -> None:
    def push() -> Any:
        with world.lake.connect(read_only=True) as connection:
            return push_view(connection, world.store, VIEW, snapshot=current_snapshot(connection), rebuild=False)

    push()
    newest = END - timedelta(days=1)
    with world.lake.connect(read_only=False) as connection:
        connection.execute(
            f"UPDATE {lake_name(VIEW_TABLE)} SET change_type = 5, _score = 6, rowid = 7 WHERE place = 'p1' AND day = DATE '{newest}'"
        )
        connection.execute(f"UPDATE {lake_name(VIEW_TABLE)} SET _loaded_at = now()")
    pushed = push()
    assert (pushed.written, pushed.removed, pushed.whole_view) == (1, 0, None)
    [row] = world.store.read([FeatureRequest("load", 1, None)], [{"place": "p1"}], datetime(2020, 3, 15, 6, tzinfo=UTC))
    assert (row.values["change_type"], row.values["_score"], row.values["rowid"]) == (5, 6, 7)


def test_no_two_names_are_one_to_the_lake() -> None:
    names = [*NUMBERS, *TEXTS, *REQUEST, DERIVED]
    assert len({fold(name) for name in names}) == len(names)
