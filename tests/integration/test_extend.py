"""The examples of docs/extend.md, run on real parts."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
import yaml
from bundles import fit_flights, push_planes, record_of
from documented_pieces import PAGE, documented, write_modules
from pydantic import ValidationError
from sklearn.pipeline import Pipeline

from mlops_assets.clients.bundle_record import ACCEPTANCE_TAG, folder_files
from mlops_assets.clients.channels import CHANNELS
from mlops_assets.clients.notifier import Notification, Notifier
from mlops_assets.clients.signatures import Signer
from mlops_assets.clients.trusted_types import RegistryError, trusted_types
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.components.stages import stages
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.ml.comparison import compare_models
from mlops_assets.ml.evaluation import Evaluation, Resampling, evaluate
from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.onnx import measure_parity, to_onnx
from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.monitoring.monitor import MONITORS
from mlops_assets.monitoring.monitoring_report import build_monitoring_report
from mlops_assets.monitoring.retraining_decision import build_retraining_decision
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.metric_names import METRICS
from mlops_assets.schema.registry import Registry
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import RawTable
from mlops_assets.schema.source_reader import READERS
from mlops_assets.serving.bundle_store import BUNDLE_STORES, StoredBundle, open_bundle_store, prune
from mlops_assets.serving.latency import Latency
from mlops_assets.serving.live import LiveSolutions
from mlops_assets.sources.reader import PARSED, parse
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.evaluation import build_evaluation
from mlops_assets.training.gate import GATES, CandidateResult, check_evaluation, rejection_reason
from mlops_assets.training.recorded_checks import DatasetState

FIXTURE = current_project().root / "tests" / "fixtures" / "solutions" / "valid" / "every_field.yaml"
CLIP = "my_team.transformers.Clip"
EQUAL_SLICES = "my_team.gates:equal_slices"
PROFIT = "my_team.metrics:profit"
ROWS = 3000
LABELS = (np.random.default_rng(1).random(ROWS) < 0.3).astype(np.int64)
SCORES = 1 / (1 + np.exp(-(np.random.default_rng(2).normal(0, 1, ROWS) + 1.5 * LABELS - 1.5)))


@pytest.fixture(autouse=True, scope="module")
def my_team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The modules of the page, importable."""
    folder = tmp_path_factory.mktemp("project")
    write_modules(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def inputs_with(attributes: dict[str, Any]) -> SolutionInputs:
    """The solution of the fixture with fields of its sections replaced."""
    changed = yaml.safe_load(FIXTURE.read_text())["attributes"]
    for section, fields in attributes.items():
        changed[section] = {**changed[section], **fields}
    registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
    return resolve_inputs(Solution.model_validate(changed), registry)


def resampling(solution: Solution) -> Resampling:
    return Resampling(seed=0, slice_metrics=(solution.training.metric,))


def evaluation(solution: Solution) -> Evaluation:
    return evaluate(
        problem=solution.problem,
        metrics=solution.metrics,
        labels=LABELS,
        predictions=SCORES,
        training_labels=LABELS,
        classes=(0, 1),
        threshold=0.3,
        slices=pa.table({"carrier": np.where(np.arange(ROWS) < 2000, "AA", "UA")}),
        minimum_slice_rows=200,
        resampling=resampling(solution),
    )


def test_a_metric_is_evaluated_like_a_built_in_one() -> None:
    solution = inputs_with(documented("Metric")).solution
    result = evaluation(solution)
    decided = SCORES >= 0.3
    gained = float(np.sum(9 * (decided & (LABELS == 1)) - (decided & (LABELS == 0)))) / ROWS
    interval = result.intervals[PROFIT]
    assert result.metrics[PROFIT] == pytest.approx(gained)
    assert result.metrics["roc_auc"] is not None
    assert interval is not None
    assert interval.low < gained < interval.high
    assert {part.value for part in result.slices if part.intervals[PROFIT] is not None} == {"AA", "UA"}
    never = WeightedMetrics("binary_classification", LABELS, np.zeros(ROWS), (0, 1), 0.3)
    assert compare_models(result, never, names=(PROFIT,), resampling=resampling(solution))[PROFIT].is_better


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_team.metrics:profits", "my_team.metrics has no 'profits'; did you mean profit?"),
        ("my_team.metric:profit", "cannot be imported: ModuleNotFoundError: No module named 'my_team.metric'"),
        ("my_team.metrics:np", "is no metric: it lacks __call__, biased_upwards, constant, greater_is_better, problems"),
        ("roc_au", "'roc_au' is no metric of binary_classification; did you mean roc_auc"),
        ("r2", "'r2' is no metric of binary_classification; allowed: roc_auc"),
    ],
)
def test_a_metric_that_does_not_exist_is_refused_at_its_place(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as refused:
        inputs_with({"training": {"metric": name}})
    assert refused.value.path == ("training", "metric")


@pytest.mark.parametrize(("maximum", "passed"), [(0.5, True), (0.0, False)])
def test_a_gate_stops_a_candidate_like_a_built_in_one(maximum: float, passed: bool) -> None:
    gates = documented("Gate")["gates"]
    gates["own"][EQUAL_SLICES]["maximum"] = maximum
    inputs = inputs_with({"gates": {**gates, "worst_slice": {}}})
    result = evaluation(inputs.solution)
    baseline = WeightedMetrics("binary_classification", LABELS, np.full(ROWS, 0.3), (0, 1), 0.3)
    candidate_result = CandidateResult(
        result=result,
        against_baseline=compare_models(result, baseline, names=("roc_auc",), resampling=resampling(inputs.solution))["roc_auc"],
        champion=None,
        against_champion={},
        not_compared="there is no champion",
        latency=Latency(p50=1.0, p99=2.0, rows=100),
        dataset=DatasetState(run_id=None, passed=("schema",), failed=(), warned=(), unchanged=True),
    )
    checks = check_evaluation(inputs, candidate_result)
    [check] = [check for check in checks if check.check_name == "equal_slices"]
    assert check.passed is passed
    assert "roc_auc by carrier differs by" in str(check.description)
    assert ("equal_slices: roc_auc by carrier" in (rejection_reason(checks) or "")) is not passed
    [spec] = [spec for spec in build_evaluation(inputs).check_specs if spec.name == "equal_slices"]
    assert not spec.blocking
    assert spec.description == "A metric differs between the slices of a column by no more than the limit."


@pytest.mark.parametrize(
    ("own", "place", "message"),
    [
        ({"my_team.gates:equal_slice": {}}, (), "my_team.gates has no 'equal_slice'; did you mean equal_slices?"),
        ({"my_team.gates:GateOutcome": {}}, (), "is no gate: it lacks"),
        ({EQUAL_SLICES: {"maximal": 1}}, ("maximal",), "has no parameter 'maximal'; did you mean maximum?"),
        ({EQUAL_SLICES: {"column": "carrier", "metric": "roc_auc"}}, (), "needs the parameter maximum"),
    ],
)
def test_a_gate_that_does_not_exist_or_has_other_parameters_is_refused(
    own: dict[str, Any], place: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as refused:
        inputs_with({"gates": {"own": own}})
    assert refused.value.path == ("gates", "own", next(iter(own)), *place)


def fitted(numeric: list[dict[str, Any]]) -> tuple[Pipeline, pd.DataFrame, FeatureSchema]:
    table = pa.table({"a": np.random.default_rng(3).normal(0, 3, ROWS), "b": SCORES})
    schema = FeatureSchema.from_arrow(table.schema, ["a", "b"])
    pipeline = build_pipeline(
        problem="binary_classification",
        schema=schema,
        estimator=PipelineStep("sklearn.linear_model.LogisticRegression", {}),
        numeric=[PipelineStep(each["type"], each.get("parameters", {})) for each in numeric],
        categorical=None,
        seed=0,
    )
    frame = to_frame(table, schema)
    return fit_pipeline(pipeline, frame, LABELS), frame, schema


def test_a_transformer_is_checked_trained_exported_and_stored_like_one_of_scikit_learn() -> None:
    documented_training = documented("Estimator and transformer")["training"]
    inputs_with({"training": documented_training})
    pipeline, frame, schema = fitted(documented_training["preprocessing"]["numeric"])
    exported = to_onnx(pipeline, schema, "binary_classification")
    assert measure_parity(pipeline, exported, frame, schema, "binary_classification").largest_difference < 1e-5
    narrower, _, _ = fitted([{"type": "sklearn.impute.SimpleImputer"}])
    assert np.abs(narrower.predict_proba(frame) - pipeline.predict_proba(frame)).max() > 1e-3
    trusted = trusted_types(pipeline)
    assert "my_team.transformers.Clip" in trusted
    stored = skops.io.loads(skops.io.dumps(pipeline), trusted=trusted)
    assert (stored.predict_proba(frame) == pipeline.predict_proba(frame)).all()
    pipeline.steps[-1][1].secret = Path("/")
    with pytest.raises(RegistryError, match=r"not trusted for loading: .*Path"):
        trusted_types(pipeline)


@pytest.mark.parametrize(
    ("step", "field", "message"),
    [
        ({"type": "my_team.transformers.Clap"}, "type", "my_team.transformers has no 'Clap'; did you mean Clip"),
        ({"type": CLIP, "parameters": {"lowest": 0}}, "parameters", "has no parameter 'lowest'; did you mean lower?"),
    ],
)
def test_a_transformer_that_does_not_exist_or_has_other_parameters_is_refused(
    step: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as refused:
        inputs_with({"training": {"preprocessing": {"numeric": [step]}}})
    assert refused.value.path[:5] == ("training", "preprocessing", "numeric", 0, field)


def test_a_channel_is_told_beside_the_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failure = Notification(
        event="run_failed", severity="failure", title="A run failed", body="", identity="1", links={"Run": "http://x"}
    )
    notifier = Notifier(log=tmp_path / "log", urls=("my_team.channels:board",))
    assert notifier.notify([failure], seconds=5) == 1
    assert json.loads((tmp_path / "board-run_failed.json").read_text()) == {"title": "A run failed", "Run": "http://x"}
    unknown = Notifier(log=tmp_path / "other", urls=("my_team.channels:bord", "my_team.channels:board"))
    (tmp_path / "board-run_failed.json").unlink()
    assert unknown.notify([failure], seconds=5) == 1
    assert (tmp_path / "board-run_failed.json").exists()
    assert json.loads((tmp_path / "other").read_text())["problem"] == "ValueError while sending"


def test_an_installed_package_registers_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlops_assets.schema.metric_names import METRICS, Metric
    from mlops_assets.schema.registry import Registry

    information = tmp_path / "my_team-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my_team\nVersion: 1.0\n")
    declared = re.search(r"```toml\n\[project.entry-points.\"(.*?)\"\]\n(.*?)\"(.*?)\"\n```", PAGE)
    assert declared
    (information / "entry_points.txt").write_text(f"[{declared[1]}]\n{declared[2]}{declared[3]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[Metric] = Registry(METRICS.kind, group=METRICS.group, builtin="mlops_assets.ml.metrics", protocol=Metric)
    assert registry.names() == (*METRICS.names(), "profit")
    assert registry.get("profit") is METRICS.get(PROFIT)


CEILING = "my_team.monitors:ceiling"


def test_a_monitor_of_a_team_is_a_stage_of_its_solution_with_a_check_and_a_place_in_the_graph() -> None:
    solution = inputs_with(documented("Monitor")).solution
    own = [stage for stage in stages(solution) if stage.name in ("ceiling_report", "population_stability_report")]
    assert [stage.job for stage in own] == ["monitoring", "monitoring"]
    inputs = inputs_with(documented("Monitor"))
    [check] = own[0].build(inputs).check_specs
    assert (check.name, check.description, check.blocking) == ("ceiling", "Few predictions have a score at the ceiling.", False)
    decision = {key.path[-1] for key in build_retraining_decision(inputs).dependency_keys}
    assert ("ceiling_report" in decision, "population_stability_report" in decision) == (True, False)
    assert {stage.name for stage in own} < {key.path[-1] for key in build_monitoring_report(inputs).dependency_keys}


@pytest.mark.parametrize(
    ("own", "place", "message"),
    [
        ({"my_team.monitors:cieling": {}}, (), "my_team.monitors has no 'cieling'; did you mean ceiling?"),
        ({"my_team.monitors:Measure": {}}, (), "is no monitor: it lacks"),
        ({"drfit": {}}, (), "Unknown monitor 'drfit': did you mean drift?"),
        ({"drift": {}}, (), "drift is built in"),
        ({CEILING: {"score": 0.9}}, (), "needs the parameter maximum"),
        ({CEILING: {"score": 0.9, "maximum": 0.1, "columns": "x"}}, ("columns",), "has no parameter 'columns'"),
        ({CEILING: {"score": "high", "maximum": 0.1}}, ("score",), "Input should be a valid number"),
    ],
)
def test_a_monitor_that_does_not_exist_or_has_other_parameters_is_refused(
    own: dict[str, Any], place: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as refused:
        inputs_with({"monitoring": {"own": own}})
    assert refused.value.path == ("monitoring", "own", next(iter(own)), *place)


STATIONS = [("0001", "Zürich", ""), ("0002", "Genève", "375,4"), ("000x", "Bern", "540,0"), ("0004", "Basel", "a")]
LINES = ["0000 Lugano", *(f"{number:4}{name:8}{height:>7}" for number, name, height in STATIONS), "0005Chur       593,0m "]


def stations(**changed: Any) -> RawTable:
    """The table of the page's reader."""
    columns = {"id": {"type": "integer", "required": True}, "name": {"type": "varchar"}, "height": {"type": "double"}}
    fields = {**documented("Source reader"), "description": "Weather stations.", "columns": columns, "null_strings": ["Genève"]}
    return RawTable.model_validate({**fields, **changed})


def parsed(table: RawTable, folder: Path) -> list[tuple[Any, ...]]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    with parse(connection, table, directory=folder, window=None):
        rows = connection.execute(f"FROM {PARSED}").fetchall()
    assert connection.execute("SELECT * FROM duckdb_tables()").fetchall() == []
    return rows


def test_rows_of_a_reader_of_a_team_are_cast_rejected_and_counted_like_those_of_a_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "stations.txt.gz").write_bytes(gzip.compress("\n".join(LINES).encode("latin-1")))
    rows = parsed(stations(), tmp_path)
    accepted = [row[:3] for row in rows if row[4] is None]
    assert accepted == [(1, "Zürich", None), (2, None, 375.4)]
    assert {(row[3], row[4]): row[5] for row in rows if row[4] is not None} == {
        ("stations.txt.gz", "id: 000x is no integer"): '{"id":"000x","name":"Bern","height":"540,0"}',
        ("stations.txt.gz", "height: a is no double"): '{"id":"0004","name":"Basel","height":"a"}',
        ("stations.txt.gz", "line 1: has 11 characters, 19 are stated"): '{"content":"0000 Lugano"}',
        ("stations.txt.gz", "line 6: has 22 characters, 19 are stated"): '{"content":"0005Chur       593,0m "}',
    }


@pytest.mark.parametrize(
    ("changed", "place", "message"),
    [
        ({"format": "cvs"}, "format", "Unknown source reader 'cvs': did you mean csv?"),
        (
            {"format": "my_team.readers:fixed_widths"},
            "format",
            "my_team.readers has no 'fixed_widths'; did you mean fixed_width?",
        ),
        ({"format": "my_team.readers:accumulate"}, "format", "is no source reader: it lacks"),
        ({"format": "postgres", "options": {}}, "format", "'postgres' reads a query: name it as `query.database`"),
        ({"options": {}}, "options", "needs the parameter widths"),
        ({"options": {"widths": [4, 8]}}, "options", "options.widths: Input should be a valid dictionary"),
        ({"options": {"widths": {}, "delim": ";"}}, "options", "the option `delim` has no effect on my_team.readers:fixed_width"),
        ({"options": {"widths": {}, "compression": "rar"}}, "options", "the compression 'rar' is not supported"),
    ],
)
def test_a_reader_that_does_not_exist_or_has_other_options_is_refused(changed: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)) as refused:
        stations(**changed)
    assert [error["loc"] for error in refused.value.errors()] == [(place,)]


def test_a_store_of_a_team_holds_the_bundles_that_are_served(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, bundle_store="my_team.stores:audited")
    bundles = open_bundle_store(settings).of("flights")
    signer, store = Signer(settings.signing_key_file), LmdbStore(tmp_path / "store")
    push_planes(store)
    live = LiveSolutions(open_bundle_store(settings), store, signer)
    for version in (1, 2):
        made = fit_flights("regression", version=version, seed=version).write(tmp_path / f"made_{version}")
        record = record_of("flights", version, files=folder_files(made))
        bundles.put(StoredBundle(version, record.sha256), made)
        bundles.activate("champion", record, record.sign(signer, "accepted")[ACCEPTANCE_TAG])
        assert live.refresh()
        champions = live["flights"].champions
        assert champions is not None
        assert champions.default.contract.version == version
    lines = (settings.serving_directory / "flights" / "changes.log").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["champion: version 1", "champion: version 2"]
    assert prune(bundles, needed=(), keep=0) == [1]


DISTRIBUTION = {
    "mlops_assets.metrics": ("gain", "my_team.metrics:profit", METRICS),
    "mlops_assets.gates": ("fair", "my_team.gates:equal_slices", GATES),
    "mlops_assets.monitors": ("saturated", CEILING, MONITORS),
    "mlops_assets.readers": ("fixed", "my_team.readers:fixed_width", READERS),
    "mlops_assets.notifications": ("wall", "my_team.channels:board", CHANNELS),
    "mlops_assets.bundle_stores": ("audit", "my_team.stores:audited", BUNDLE_STORES),
}
"""Group of entry points -> name, import path, and the registry that finds it."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with an entry point of each group, installed as pip lays one down."""
    information = tmp_path / "my_team_pieces-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-team-pieces\nVersion: 1.0\n")
    points = "".join(
        f"[{group}]\n{name} = {path}\nbroken = my_team.metrics:none\n\n" for group, (name, path, _) in DISTRIBUTION.items()
    )
    (information / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("group", DISTRIBUTION)
def test_every_registry_finds_a_piece_that_an_installed_distribution_registers(group: str, installed: Path) -> None:
    name, path, of_platform = DISTRIBUTION[group]
    # A registry reads the entry points once in a process.
    registry = Registry(of_platform.kind, group=group, builtin=of_platform.builtin, protocol=of_platform.protocol)
    assert of_platform.group == group
    assert registry.names()[-2:] == (name, "broken")
    assert registry.get(name) is of_platform.get(path)
    assert not registry.is_own(name)
    with pytest.raises(ConfigurationError, match=f"Unknown {of_platform.kind} '{name}s': did you mean {name}") as refused:
        registry.check(f"{name}s", ("here",))
    assert refused.value.path == ("here",)
    with pytest.raises(ValueError, match=re.escape(f"(my_team.metrics:none, an entry point of {group}) does not exist")):
        registry.get("broken")
