"""With what a candidate is compared: a champion that is there, as it was before it saw the hold-out."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
from clinic import solution_inputs

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.deployment_target import LEFT_TO_SOLUTION
from mlops_assets.schema.solution import Segments
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.rival import has_seen_holdout, present_champion, was_fitted_on_holdout

WHOLE = solution_inputs("daily")
WHOLE = replace(WHOLE, solution=WHOLE.solution.model_copy(update={"segments": Segments(column="age", values=["old"])}))
OLD = replace(WHOLE, by_segment=True, segment="old")


class Champions(ModelRegistry):
    """A registry with version 1 as champion of the solution and version 2 of the segment, unless they are `removed`."""

    removed: tuple[str | None, ...] = ()

    def champion(self, solution: str, segment: str | None = None) -> RegisteredModel | None:
        return None if segment in self.removed else RegisteredModel(solution, 1 if segment is None else 2, "run", {})


def registry(*removed: str | None) -> ModelRegistry:
    found = Champions("", "", Signer(Path("unused")))
    object.__setattr__(found, "removed", removed)
    return found


def deploy(instance: dg.DagsterInstance, inputs: SolutionInputs, *, left_to_solution: bool) -> None:
    target = inputs.deployment_target
    event = dg.AssetMaterialization(
        target.key,
        partition=str(target.partition_key("2020-01-10")),
        metadata={"model_version": 1, LEFT_TO_SOLUTION: left_to_solution},
    )
    instance.report_runless_asset_event(event)


def test_a_champion_that_was_deployed_cannot_be_taken_away_by_its_alias() -> None:
    instance = dg.DagsterInstance.ephemeral()
    assert present_champion(instance, registry(None, "old"), OLD) is None
    for inputs, name in ((WHOLE, "champion"), (OLD, "champion-old")):
        deploy(instance, inputs, left_to_solution=False)
        with pytest.raises(EvidenceError, match=rf"The alias {name} of clinic was removed by hand.* evaluation again"):
            present_champion(instance, registry(None, "old"), inputs)
        assert present_champion(instance, registry(), inputs) is not None
    # The solution's champion is no rival of a segment that has one.
    with pytest.raises(EvidenceError, match="champion-old"):
        present_champion(instance, registry("old"), OLD)


def test_a_segment_without_a_champion_is_compared_with_that_of_its_solution() -> None:
    instance = dg.DagsterInstance.ephemeral()
    for _ in range(2):
        found = present_champion(instance, registry("old"), OLD)
        assert found is not None
        assert found.version == 1
        deploy(instance, OLD, left_to_solution=True)


@pytest.mark.parametrize(("days_before", "has_seen"), [(0, True), (4, True), (5, False), (30, False), (-10, True)])
def test_a_refitted_champion_has_seen_what_lies_before_its_training_date(days_before: int, has_seen: bool) -> None:
    holdout = WHOLE.solution.training.holdout
    assert holdout == "5d"
    trained = date(2020, 2, 1)
    candidate, champion = (
        RegisteredModel("clinic", 1, "run", {"training_date": day.isoformat()})
        for day in (trained, trained - timedelta(days_before))
    )
    assert has_seen_holdout(WHOLE, champion, candidate) is has_seen


def test_the_hold_out_of_a_recalibrated_version_begins_where_its_model_ends() -> None:
    trained, fitted = date(2020, 2, 1), date(2020, 1, 30)
    candidate, base = (RegisteredModel("clinic", 1, "run", {"training_date": day.isoformat()}) for day in (trained, fitted))
    assert has_seen_holdout(WHOLE, base, candidate)
    assert not has_seen_holdout(WHOLE, base, candidate, since=fitted)
    assert has_seen_holdout(WHOLE, base, candidate, since=date(2020, 1, 1))


@pytest.mark.parametrize(("days_later", "was_fitted"), [(1, True), (30, True), (0, False), (-3, False)])
def test_a_champion_of_a_later_date_was_fitted_on_the_holdout_and_is_not_compared(days_later: int, was_fitted: bool) -> None:
    trained = date(2020, 2, 1)
    candidate, champion = (
        RegisteredModel("clinic", 1, "run", {"training_date": day.isoformat()})
        for day in (trained, trained + timedelta(days_later))
    )
    assert was_fitted_on_holdout(WHOLE, champion, candidate) is was_fitted
