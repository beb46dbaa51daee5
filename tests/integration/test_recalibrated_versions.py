"""Recalibrated versions, from training to deployment and back, on a real lake and a real MLflow registry.

The visits of a clinic: from the first of March on, what happens is another function of what the model learned than before.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import inprocess
import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core import check_rules
from mlops_assets.core.keys import ONLINE_FEATURES
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.deployment import build_deployment, load_champions
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.lake.lake import Lake
from mlops_assets.ml.recalibration_methods import FEWEST_ROWS
from mlops_assets.schema.problem import Problem
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.bundle import Bundle
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import fitted_version, read_bundle, read_gated_bundle
from mlops_assets.training.evaluation import build_evaluation
from mlops_assets.training.model import build_model
from mlops_assets.training.monitoring_reference import load_reference
from mlops_assets.training.training_dataset import build_training_dataset

STAGES = ("training_dataset", "model", "evaluation", "deployment")
COLUMNS = {
    "id": "varchar",
    "day": "date",
    "at": "timestamp with time zone",
    "known_at": "timestamp with time zone",
    "age": "double",
}
LABELS = {"binary_classification": "boolean", "multiclass_classification": "varchar"}
CHAINS: tuple[Problem, ...] = ("binary_classification", "multiclass_classification")
"""A regression takes the same way: of it, only what the servers answer is of another kind (tests/unit/serving)."""

FITTED, LATER, LATEST = "2020-03-01", "2020-03-15", "2020-03-22"


def solution_inputs(name: str, problem: Problem) -> SolutionInputs:
    attributes = {
        "name": name,
        "description": "Visits.",
        "owners": ["team:clinic"],
        "problem": problem,
        "partitions": {"column": "day", "start": "2020-01-01", "cadence": "daily", "time_zone": "UTC"},
        "spine": {"model": "visits", "key": "id", "prediction_time": "at", "label": "outcome", "label_time": "known_at"},
        "features": [{"request": ["age"]}],
        "training": {
            "window": "60d",
            "holdout": "7d",
            "metric": "log_loss",
            "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
        },
        # A process that is busy with others is no reason to refuse a version.
        "gates": {"maximum_latency_milliseconds": 10_000},
    }
    spine = DbtModel(
        name="visits",
        table=f"{name}.visits",
        description="",
        columns=COLUMNS | {"outcome": LABELS[problem]},
        column_descriptions={},
        partition_column="day",
    )
    return SolutionInputs(Solution.model_validate(attributes), spine, views=(), request=("age",), derived={})


def visits(problem: Problem) -> str:
    """SQL for 50 visits a day: the outcome follows the age, from March on at another level."""
    odds = "(age - 50) / 15 - CASE WHEN day >= DATE '2020-03-01' THEN 1.5 ELSE 0 END"
    outcome = {
        "binary_classification": f"draw < 1 / (1 + exp(-({odds})))",
        "multiclass_classification": f"CASE WHEN draw < 1 / (1 + exp(-4 * ({odds}))) THEN 'late' "
        f"WHEN draw < 1 / (1 + exp(-4 * ({odds} + 1))) THEN 'in time' ELSE 'early' END",
    }[problem]
    return (
        f"SELECT 'v' || i AS id, day, moment AS \"at\", moment + INTERVAL 1 HOUR AS known_at, age, {outcome} AS outcome FROM ("
        "SELECT i, DATE '2020-01-01' + CAST(i // 50 AS INTEGER) AS day, "
        "TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_days(CAST(i // 50 AS INTEGER)) + to_minutes(28 * (i % 50)) AS moment, "
        "20.0 + hash(i) % 600 / 10 AS age, hash(i + 100000) % 10000 / 10000 AS draw FROM range(50 * 90) r(i))"
    )


class Registry(ModelRegistry):
    """A registry without a server, which would have pages."""

    def version_url(self, model: RegisteredModel) -> str:
        return f"http://mlflow/{model.version}"

    def run_url(self, run_id: str) -> str:
        return f"http://mlflow/{run_id}"


class Clinic:
    """The assets of a solution for `problem`, with what they run on."""

    def __init__(self, problem: Problem, lake: Lake, registry: ModelRegistry, settings: Settings):
        self.name = f"clinic_{problem.partition('_')[0]}"
        self.inputs = solution_inputs(self.name, problem)
        self.lake, self.registry, self.settings = lake, registry, settings
        self.instance = dg.DagsterInstance.ephemeral()
        builders = (build_training_dataset, build_model, build_evaluation, build_deployment)
        self.assets = [build(self.inputs) for build in builders]
        with lake.connect(read_only=False) as connection:
            lake.replace(connection, table=f"{self.name}.visits", query=visits(problem), partition_range=None, author="test")
        key, parity = self.inputs.key(ONLINE_FEATURES), check_rules.ONLINE_OFFLINE_PARITY.name
        self.instance.report_runless_asset_event(dg.AssetCheckEvaluation(key, parity, passed=True, metadata={}, blocking=True))

    def run(self, day: str, *stages: str, **configuration: Any) -> dg.ExecuteInProcessResult:
        """Materialize training stages for `day`; `configuration` is that of the model."""
        return dg.materialize(
            self.assets,
            selection=[dg.AssetKey([self.name, stage]) for stage in stages],
            resources={"lake": self.lake, "registry": self.registry, "settings": self.settings},
            instance=self.instance,
            partition_key=day,
            run_config={"ops": {f"{self.name}__model": {"config": configuration}}} if configuration else None,
            raise_on_error=False,
        )

    def train(self, day: str, **configuration: Any) -> RegisteredModel:
        """Return the version that all stages for `day` made the champion."""
        result = self.run(day, *STAGES, **configuration)
        assert result.success, (inprocess.failures(result), inprocess.failed_checks(result))
        champion = self.registry.champion(self.name)
        assert champion is not None
        return champion

    def bundle(self, model: RegisteredModel) -> Bundle:
        return read_bundle(self.registry, self.settings, model)

    def query(self, query: str) -> pa.Table:
        with self.lake.connect(read_only=True) as connection:
            return connection.execute(query.format(name=f"lake.{self.name}")).to_arrow_table()


@dataclass(frozen=True)
class Chain:
    """A solution with a fitted version, and one that was made of it two weeks later."""

    clinic: Clinic
    base: RegisteredModel
    recalibrated: RegisteredModel


@pytest.fixture(scope="module")
def chains(make_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Problem, Chain]]:
    """The chain of each of `CHAINS`."""
    home = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patched:
        # The artifacts of a database without a server lie in the current folder.
        patched.chdir(home)
        registry = Registry(f"sqlite:///{home}/mlflow.db", "", Signer(home / "signing_key"))
        chains, lake = {}, make_lake()
        for problem in CHAINS:
            clinic = Clinic(problem, lake, registry, Settings(home=home / "home"))
            base = clinic.train(FITTED)
            chains[problem] = Chain(clinic, base, clinic.train(LATER, recalibrate=base.version))
        yield chains


def answers(bundle: Bundle, rows: pa.Table) -> np.ndarray:
    scored = bundle.score(rows)
    names = [name for name in ("probabilities", "score") if name in scored.column_names]
    return np.array(scored.column(names[0]).to_pylist())


@pytest.mark.parametrize("problem", CHAINS)
def test_a_version_is_recalibrated_on_what_it_has_not_seen_and_predicts(problem: Problem, chains: dict[Problem, Chain]) -> None:
    clinic, base, recalibrated = chains[problem].clinic, chains[problem].base, chains[problem].recalibrated
    record = clinic.registry.registered_record(recalibrated)
    assert (recalibrated.version, record.training.recalibrates) == (base.version + 1, base.version)
    # 50 rows on each of 14 days, less those of the last hour, whose labels were not known.
    assert recalibrated.recalibration is not None
    assert recalibrated.recalibration.startswith(f"version {base.version} recalibrated (")
    assert recalibrated.recalibration.endswith(f"on 700 rows known at {LATER}")
    before, after = clinic.bundle(base), clinic.bundle(recalibrated)
    assert after.contract.model_sha256 == before.contract.model_sha256
    made_of = after.contract.recalibration
    assert made_of is not None
    rows = clinic.query(f"SELECT * FROM {{name}}.visits WHERE day >= DATE '{LATER}' ORDER BY id")
    raw = answers(before, rows)
    np.testing.assert_array_equal(answers(after, rows), made_of.recalibration.apply(raw).astype(np.float32))
    [predicting] = load_champions(clinic.instance, clinic.registry, clinic.settings, clinic.inputs).bundles
    assert predicting.contract == after.contract


@pytest.mark.parametrize("problem", CHAINS)
def test_the_gates_evaluate_on_rows_that_neither_model_nor_recalibration_has_seen(
    problem: Problem, chains: dict[Problem, Chain]
) -> None:
    clinic, base, recalibrated = chains[problem].clinic, chains[problem].base, chains[problem].recalibrated
    gated = read_gated_bundle(clinic.registry, clinic.settings, recalibrated).contract.recalibration
    served = clinic.bundle(recalibrated).contract.recalibration
    assert gated is not None
    assert served is not None
    assert gated.parameters != served.parameters
    evaluated = clinic.query(
        "SELECT count(*) AS rows, min(day) AS first FROM {name}.evaluation JOIN {name}.visits USING (id) "
        f"WHERE model_version = {recalibrated.version}"
    )
    assert evaluated.to_pylist() == [{"rows": 350, "first": date(2020, 3, 8)}]
    # Alarms are those of the base: its reference, not one of the changed weeks.
    references = [load_reference(clinic.registry, clinic.settings, model) for model in (base, recalibrated)]
    assert references[0].rows.equals(references[1].rows)
    assert references[0].summary == references[1].summary


def test_the_same_again_finds_it_and_a_later_one_is_made_of_the_fitted_version(chains: dict[Problem, Chain]) -> None:
    chain = chains["binary_classification"]
    clinic, base, recalibrated = chain.clinic, chain.base, chain.recalibrated
    [event] = clinic.run(LATER, "model", recalibrate=recalibrated.version).get_asset_materialization_events()
    values = event.materialization.metadata
    assert (values["model_version"].value, values["reused"].value) == (recalibrated.version, True)
    assert values["recalibration"].value == recalibrated.recalibration
    # A training of the same date is another version.
    [event] = clinic.run(LATER, "model").get_asset_materialization_events()
    assert event.materialization.metadata["model_version"].value == recalibrated.version + 1
    later = clinic.train(LATEST, recalibrate=recalibrated.version)
    assert fitted_version(clinic.registry, later).version == base.version
    made_of = clinic.bundle(later).contract.recalibration
    assert made_of is not None
    assert made_of.version == base.version


def test_a_candidate_is_compared_with_a_recalibrated_champion_as_it_was_before_the_hold_out(chains: dict[Problem, Chain]) -> None:
    clinic = chains["binary_classification"].clinic
    champion = clinic.train("2020-03-05", recalibrate=chains["binary_classification"].base.version)
    # Its hold-out begins before the training date of the model that the champion has, which was fitted on it again.
    result = clinic.run("2020-03-06", *STAGES[:3])
    [check] = [check for check in result.get_asset_check_evaluations() if check.check_name == "against_champion"]
    assert check.metadata["champion"].value == champion.version
    assert check.metadata["champion_is_gated_fit"].value is True
    assert check.description is not None
    assert f"version {champion.version} as it was before its refit" in check.description


def test_the_base_predicts_again_after_a_rollback(chains: dict[Problem, Chain]) -> None:
    clinic, base = chains["binary_classification"].clinic, chains["binary_classification"].base
    back = clinic.run(FITTED, "deployment")
    assert back.success, inprocess.failures(back)
    [predicting] = load_champions(clinic.instance, clinic.registry, clinic.settings, clinic.inputs).bundles
    assert predicting.contract.version == base.version
    assert predicting.contract.recalibration is None


def test_what_cannot_be_recalibrated_says_why(chains: dict[Problem, Chain]) -> None:
    clinic, base = chains["binary_classification"].clinic, chains["binary_classification"].base

    def reason(day: str, *stages: str, **configuration: Any) -> str:
        result = clinic.run(day, *stages, "model", **configuration)
        assert not result.success
        [message] = inprocess.failures(result)
        return message

    few = reason("2020-03-04", "training_dataset", recalibrate=base.version)
    assert "150 rows of that training dataset were predicted from 2020-03-01 on" in few
    assert f"at least {FEWEST_ROWS} are needed" in few
    assert "has no version 99" in reason(LATER, recalibrate=99)
    assert "leave one of both out" in reason(LATER, recalibrate=base.version, overrides={"training.seed": 1})
    with clinic.lake.connect(read_only=False) as connection:
        connection.execute(f"UPDATE lake.{clinic.name}.visits SET outcome = false WHERE day >= DATE '{FITTED}'")
    assert "are all the same" in reason("2020-03-17", "training_dataset", recalibrate=base.version)
    clinic.registry.reject(base, "floor")
    assert "has not passed its gates" in reason(LATER, recalibrate=base.version)
