"""The coordinator: what a run does decides which slots it has, whoever asks for the run."""

from types import SimpleNamespace

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.execution.api import create_execution_plan
from dagster._core.run_coordinator import SubmitRunContext
from run_instances import CODE, REMOTE
from starlette.requests import HTTPConnection

from mlops_assets.access.identities import IDENTITY, Identity
from mlops_assets.access.launchers import IDENTIFIED_BY_TAG, LAUNCHED_BY_TAG, system_user, system_user_tags
from mlops_assets.runs.slots import CHAMPION, SLOTS_TAG, VERSION_CHECK, WORK


@dg.asset(op_tags={SLOTS_TAG: CHAMPION})
def deployment() -> None: ...


@dg.asset(deps=[deployment])
def predictions() -> None: ...


@dg.asset_check(asset=deployment, op_tags={SLOTS_TAG: VERSION_CHECK})
def served_version() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def submitted(
    instance: DagsterInstance, selection: dg.AssetSelection, tags: dict[str, str], identity: Identity | None = None
) -> dict[str, str]:
    """The tags of a run of the selection once it is queued. With an `identity` it is launched by a request that the guard admitted."""
    definitions = dg.Definitions(
        assets=[deployment, predictions], asset_checks=[served_version], jobs=[dg.define_asset_job("some", selection=selection)]
    )
    job = definitions.resolve_job_def("some")
    plan = create_execution_plan(job)
    run = instance.create_run_for_job(job, execution_plan=plan, tags=tags, remote_job_origin=REMOTE, job_code_origin=CODE)
    scope = {"type": "http", "headers": []} | ({IDENTITY: identity} if identity else {})
    workspace = SimpleNamespace(source=HTTPConnection(scope)) if identity else None
    queued = instance.run_coordinator.submit_run(SubmitRunContext(run, workspace))  # type: ignore[arg-type]
    assert queued.status is DagsterRunStatus.QUEUED
    return dict(queued.tags)


def test_a_run_is_classed_by_what_it_executes(instance: DagsterInstance) -> None:
    assert submitted(instance, dg.AssetSelection.assets(deployment).without_checks(), {})[SLOTS_TAG] == CHAMPION
    assert submitted(instance, dg.AssetSelection.checks(served_version), {})[SLOTS_TAG] == VERSION_CHECK
    assert submitted(instance, dg.AssetSelection.assets(deployment, predictions), {})[SLOTS_TAG] == WORK


def test_nobody_takes_the_slots_of_another_kind_by_a_tag(instance: DagsterInstance) -> None:
    tags = submitted(instance, dg.AssetSelection.assets(predictions), {SLOTS_TAG: CHAMPION, "dagster/priority": "99"})
    assert (tags[SLOTS_TAG], tags["dagster/priority"]) == (WORK, "0")


def test_the_switch_of_a_champion_comes_first(instance: DagsterInstance) -> None:
    tags = submitted(instance, dg.AssetSelection.assets(deployment).without_checks(), {})
    assert int(tags["dagster/priority"]) > 0
    assert int(tags["dagster/max_runtime"]) > 0


def test_a_run_names_who_signed_in_whatever_its_tags_say(instance: DagsterInstance) -> None:
    selection = dg.AssetSelection.assets(predictions)

    def launcher(identity: Identity | None, tags: dict[str, str]) -> tuple[str | None, str | None]:
        queued = submitted(instance, selection, tags, identity)
        return queued.get(LAUNCHED_BY_TAG), queued.get(IDENTIFIED_BY_TAG)

    forged = {LAUNCHED_BY_TAG: "bert", IDENTIFIED_BY_TAG: "sign-in"}
    assert launcher(Identity("anna", "operator", has_session=True), forged) == ("anna", "sign-in")
    assert launcher(Identity("anna", "operator", has_session=False), forged) == ("anna", "sign-in")
    assert launcher(Identity("owner", "operator", has_session=True), forged) == ("owner", "sign-in")
    # The owner's token is that of the commands, which name the user of the system.
    assert launcher(Identity("owner", "operator", has_session=False), system_user_tags()) == (system_user(), "operating system")
    # A sensor has nobody to name.
    assert launcher(None, {}) == (None, None)
