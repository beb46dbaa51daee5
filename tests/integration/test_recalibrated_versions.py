"""Recalibrated versions, from training to deployment and back, on a real lake and a real MLflow registry.

The visits of a clinic: from the first of March on, what happens is another function of what the model learned than before.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import inprocess
import numpy as np
import pyarrow as pa
import pytest
from clinic_chain import STAGES, Clinic, Registry
from recorded_reads import undeclared_and_unread
from registry_database import new_registry_url

from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.deployment import load_champions
from mlops_assets.lake.lake import Lake
from mlops_assets.ml.recalibration_methods import FEWEST_ROWS
from mlops_assets.predictions.predictions import training_dates_of
from mlops_assets.schema.problem import Problem
from mlops_assets.serving.bundle import Bundle
from mlops_assets.stages.refusal import REFUSED_METADATA
from mlops_assets.training.bundle_reading import fitted_version, read_gated_bundle
from mlops_assets.training.monitoring_reference import load_leads, load_reference
from mlops_assets.training.recalibrated_version import fitted_days
from mlops_assets.training.rival import find_leads

pytestmark = pytest.mark.long

CHAINS: tuple[Problem, ...] = ("binary_classification", "multiclass_classification")
"""A regression takes the same way: of it, only what the servers answer is of another kind (tests/unit/serving)."""

FITTED, LATER, LATEST = "2020-03-01", "2020-03-15", "2020-03-22"


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
        registry = Registry(new_registry_url(home), "", Signer(home / "signing_key"))
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
    # Rows that either has learned from are no test of it.
    learned = {clinic.registry.registered_record(model).training.training_date for model in (base, recalibrated)}
    assert training_dates_of(clinic.registry, clinic.inputs, recalibrated.version) == learned
    assert len(learned) == 2
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
    # What it loses to the champion on these rows is the lead of the champion, with which its windows are compared.
    made = {event.asset_key.path[-1]: event.materialization.metadata for event in result.get_asset_materialization_events()}
    candidate = clinic.registry.get(clinic.name, int(made["model"]["model_version"].value))  # type: ignore[arg-type]
    leads = load_leads(clinic.registry, clinic.settings, candidate)
    assert leads
    assert {lead.version for lead in leads.values()} == {champion.version}
    [compared] = [record.data for record in check.metadata["differences"].records if record.data["metric"] == "log_loss"]  # type: ignore[attr-defined]
    lost = float(str(compared["difference"]))
    assert leads["log_loss"].loss == pytest.approx(lost, abs=1e-3) if lost > 0 else "log_loss" not in leads
    # Evaluated again with nobody to compare it with, it keeps them.
    assert find_leads(clinic.registry, clinic.settings, candidate, champion=None, differences={}) == leads
    assert check.description is not None
    assert f"version {champion.version} as it was before its refit" in check.description


@pytest.mark.parametrize(
    ("gates", "refusing", "check", "skipped"),
    [
        ({"floor": {"accuracy": 0.999}}, "evaluation", "floor", ["deployment"]),
        ({"maximum_onnx_difference": 1e-12}, "model", "onnx_parity", ["evaluation", "deployment"]),
    ],
)
def test_a_refused_candidate_is_a_result_and_no_failed_run(
    chains: dict[Problem, Chain], gates: dict[str, Any], refusing: str, check: str, skipped: list[str]
) -> None:
    chain = chains["multiclass_classification"]
    clinic, recalibrated = chain.clinic, chain.recalibrated
    result = clinic.under(**gates).run(LATER, *STAGES[1:], recalibrate=chain.base.version)
    assert result.success, inprocess.failures(result)
    assert inprocess.failed_checks(result) == {(f"{clinic.name}/{refusing}", check)}
    assert inprocess.skipped(result) == {f"{clinic.name}__{stage}" for stage in skipped}
    made = {event.asset_key.path[-1]: event.materialization for event in result.get_asset_materialization_events()}
    assert list(made) == [stage for stage in STAGES[1:] if stage not in skipped]
    assert made[refusing].metadata["model_version"].value == recalibrated.version
    assert str(made[refusing].metadata[REFUSED_METADATA].value).startswith(f"{check}: ")
    # The same rows are the same version of the data, refused or not.
    assert made[refusing].tags["dagster/data_version"]
    assert made[refusing].partition == LATER
    # Neither a deployment nor an evaluation of its own brings the version to predict.
    assert "has not passed its gates" in inprocess.failures(clinic.run(LATER, "deployment"))[0]
    again = clinic.under(**gates).run(LATER, "evaluation", "deployment")
    assert (again.success, inprocess.skipped(again)) == (True, {f"{clinic.name}__deployment"})
    # By its own gates it is accepted as before.
    assert clinic.run(LATER, *STAGES[1:], recalibrate=chain.base.version).success


@pytest.mark.parametrize(("refit", "days"), [(None, 14 - 5), (False, 14 - 7)])
def test_where_labels_are_late_the_newest_days_are_left_out_and_not_the_hold_out(
    refit: bool | None, days: int, chains: dict[Problem, Chain]
) -> None:
    """Of the hold-out of a week the rows of two days have had five for their labels. Without a refit by wish none of it is fitted on."""
    chain = chains["multiclass_classification"]
    solution = chain.clinic.inputs.solution
    late = solution.monitoring.performance.model_copy(update={"label_delay": "5d"})
    clinic = chain.clinic.declaring(
        monitoring=solution.monitoring.model_copy(update={"performance": late}),
        training=solution.training.model_copy(update={"refit": refit}),
    )
    [event] = clinic.run(LATER, "model", recalibrate=chain.base.version).get_asset_materialization_events()
    values = event.materialization.metadata
    assert (values["fitted_rows"].value, values["refit"].value) == (50 * days, refit is None)


def test_a_recalibration_is_fitted_on_the_windows_that_decisions_recalibrate_by(chains: dict[Problem, Chain]) -> None:
    """Eight weeks, of which the one of the training date is no whole one."""
    inputs = chains["binary_classification"].clinic.inputs
    later = date(2020, 3, 29)
    assert fitted_days(inputs, later, date(2020, 3, 1)) == (date(2020, 3, 1), later)
    assert fitted_days(inputs, later, date(2020, 1, 1)) == (date(2020, 2, 3), later)


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


def test_every_stage_declares_what_a_recalibrated_version_makes_it_read(chains: dict[Problem, Chain]) -> None:
    for chain in chains.values():
        clinic = chain.clinic
        undeclared, unread = undeclared_and_unread(clinic.assets, clinic.reads, without_table=[], unmet=())
        assert (sorted(undeclared), sorted(unread)) == ([], [])
