"""Sections of a solution that contradict each other are refused at load, with the field and the remedy."""

from typing import Any

import pytest

from mlops_assets.schema.configuration_errors import ConfigurationError, ErrorCollector
from mlops_assets.schema.section_rules import check_sections, find_doubts
from mlops_assets.schema.solution import Solution

DECLARED: dict[str, Any] = {
    "name": "parcels",
    "description": "Late parcels.",
    "owners": ["team:logistics"],
    "problem": "binary_classification",
    "partitions": {"column": "day", "start": "2024-01-01", "end": "2026-01-01"},
    "spine": {"model": "parcels", "key": "id", "prediction_time": "sent_at", "label": "is_late", "label_time": "delivered_at"},
    "features": [{"request": ["weight"]}],
    "training": {
        "window": "300d",
        "holdout": "30d",
        "metric": "roc_auc",
        "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
    },
}


def solution(**sections: Any) -> Solution:
    return Solution.model_validate({**DECLARED, **sections})


def training(**fields: Any) -> dict[str, Any]:
    return {"training": {**DECLARED["training"], **fields}}


def errors(declared: Solution) -> list[tuple[tuple[str | int, ...], str]]:
    collector = ErrorCollector()
    check_sections(declared, collector)
    try:
        collector.raise_errors()
    except ConfigurationError as error:
        return [(each.path, each.message) for each in error.errors]
    return []


def test_a_plain_solution_has_no_contradiction() -> None:
    assert errors(solution()) == []
    assert find_doubts(solution()) == []


@pytest.mark.parametrize(
    ("sections", "path", "message"),
    [
        (training(holdout="400d"), ("training", "holdout"), "no row is left to train on"),
        (training(holdout="1y", window="12m"), ("training", "holdout"), "not shorter than the window"),
        (training(holdout="30d", window="1m"), ("training", "holdout"), "not shorter than the window of 1m"),
        (training(holdout="3y", window="4y"), ("training", "holdout"), "covers the partitions from 2024-01-01 to 2026-01-01"),
        ({"gates": {"floor": {"roc_auc": 1.2}}}, ("gates", "floor", "roc_auc"), "cannot be better than 1"),
        ({"gates": {"floor": {"log_loss": -0.1}}}, ("gates", "floor", "log_loss"), "cannot be better than 0"),
        (
            {"gates": {"slices": ["weight"], "worst_slice": {"accuracy": 95}}},
            ("gates", "worst_slice", "accuracy"),
            "no model reaches 95",
        ),
        (
            {"gates": {"floor": {"expected_calibration_error": 0.1}, "maximum_calibration_error": 0.05}},
            ("gates", "floor", "expected_calibration_error"),
            "keep one of the two",
        ),
        ({"checks": {"label_rate": [0.9, 0.1]}}, ("checks", "label_rate"), "the least, 0.9, is above the greatest, 0.1"),
        ({"checks": {"label_rate": [5, 10]}}, ("checks", "label_rate"), "between 0 and 1"),
        (
            {"monitoring": {"data_quality": {"row_count": [2, 1]}}},
            ("monitoring", "data_quality", "row_count"),
            "above the greatest",
        ),
        (
            {"partitions": {"column": "day", "start": "2024-01-01", "cadence": "monthly"}, "monitoring": {"window": "weekly"}},
            ("monitoring", "window"),
            "use monthly or longer",
        ),
        ({"retraining": {"cooldown": "60d", "max_age": "30d"}}, ("retraining", "cooldown"), "max_age of 30d has no effect"),
        ({"serving": {"online": False, "canary": 0.1}}, ("serving", "canary"), "the online channel"),
        ({"deployment": {"approval": "required"}, "serving": {"canary": 0.1}}, ("serving", "canary"), "that nobody approved"),
        ({"name": "features"}, ("name",), "choose another name"),
    ],
)
def test_a_contradiction_names_the_field_and_the_remedy(sections: dict[str, Any], path: tuple[str, ...], message: str) -> None:
    [(where, what)] = errors(solution(**sections))
    assert where == path
    assert message in what


def test_all_contradictions_are_told_at_once() -> None:
    declared = solution(**training(holdout="400d"), checks={"label_rate": [0.9, 0.1]}, gates={"floor": {"accuracy": 2}})
    assert {path for path, _ in errors(declared)} == {
        ("training", "holdout"),
        ("checks", "label_rate"),
        ("gates", "floor", "accuracy"),
    }


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        (
            {"gates": {"floor": {"accuracy": 0.8}, "slices": ["weight"], "worst_slice": {"accuracy": 0.9}}},
            ("gates", "floor", "accuracy"),
        ),
        ({**training(class_weight="balanced"), "gates": {"maximum_calibration_error": 0.05}}, ("training", "class_weight")),
    ],
)
def test_what_is_probably_not_meant_is_a_doubt(sections: dict[str, Any], path: tuple[str, ...]) -> None:
    declared = solution(**sections)
    assert errors(declared) == []
    assert [doubt.path for doubt in find_doubts(declared)] == [path]
