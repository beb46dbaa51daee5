"""The days for which changed models are built: those that are compared, and what these depend on."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from clinic import lake_in_memory, solution_inputs

from mlops_assets.feature_store.point_in_time import STALE_DAYS, SelectedView
from mlops_assets.feature_store.registry import DbtModel, FeatureView
from mlops_assets.operations.review.build_plan import BuildPlan, ComparedWindows, plan_builds

WINDOWS = ComparedWindows((date(2020, 6, 1), date(2020, 6, 8)), date(2020, 6, 15))


def _node(name: str, *parents: str, history_days: int = 0) -> dict[str, Any]:
    meta = {"partition_column": "day", "dagster": {"history_days": history_days}}
    return {
        "schema": "clinic",
        "name": name,
        "meta": meta,
        "config": {"materialized": "incremental", "meta": meta},
        "depends_on": {"nodes": [f"model.p.{parent}" for parent in parents]},
    }


MANIFEST = {
    "nodes": {
        "model.p.stays": _node("stays", "beds"),
        "model.p.history": _node("history", "stays", history_days=28),
        "model.p.visits": _node("visits", "history", history_days=2),
    }
}
ALL = tuple(MANIFEST["nodes"])


def _plan(
    *built: str, freshness_days: int | None = 3, for_models: bool = False, windows: tuple[ComparedWindows, ...] = (WINDOWS,)
) -> list[BuildPlan]:
    model = DbtModel("history", "clinic.history", "", {"patient": "", "at": "", "n": ""}, {}, "day")
    view = FeatureView(model, version=1, entity=("patient",), event_timestamp="at", freshness_days=freshness_days, owner=None)
    inputs = replace(solution_inputs("daily"), views=(SelectedView(view, ("n",)),))
    with lake_in_memory() as connection:
        for name in ("stays", "history", "visits"):
            connection.execute(f"CREATE TABLE lake.clinic.{name} AS SELECT DATE '2020-01-01' AS day")
        keys = [f"model.p.{name}" for name in built]
        solutions = [(inputs, ALL, span) for span in windows]
        return plan_builds(connection, MANIFEST, built=keys, solutions=solutions, for_models=for_models)


@pytest.mark.parametrize(
    ("built", "days"),
    [(("visits",), 2), (("history", "visits"), 30 + 3 + STALE_DAYS), (("stays", "history", "visits"), 30 + 3 + STALE_DAYS)],
)
def test_it_reaches_back_as_far_as_models_and_predictions_read(built: tuple[str, ...], days: int) -> None:
    [plan] = _plan(*built)
    assert (plan.compared, plan.end) == (date(2020, 6, 1), date(2020, 6, 15))
    # Three days of slack between calendars.
    assert (plan.compared - plan.first).days == days + 3


def test_a_training_begins_with_its_window() -> None:
    [plan] = _plan("visits", for_models=True)
    assert (plan.compared - plan.first).days == 30 + 2 + 3


def test_values_that_never_expire_are_built_from_the_first_day_on() -> None:
    [plan] = _plan("history", freshness_days=None)
    assert plan.first == date(2020, 1, 1)


def test_what_the_solution_does_not_use_is_not_built() -> None:
    assert _plan() == []


def test_solutions_that_share_a_model_have_it_built_once() -> None:
    later = ComparedWindows((date(2020, 6, 8),), date(2020, 7, 1))
    [plan] = _plan("visits", windows=(WINDOWS, later))
    assert (plan.models, plan.compared, plan.end) == (("model.p.visits",), date(2020, 6, 1), date(2020, 7, 1))
