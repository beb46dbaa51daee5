from types import MappingProxyType

import pytest

from mlops_assets.feature_store.registry import DbtModel, FeatureView
from mlops_assets.features.contracts import broken_message, check_contract, compare_contract

RECORDED = {"carrier": "VARCHAR", "delay": "DOUBLE"}
VIEW = FeatureView(
    model=DbtModel(
        name="history",
        table="features.history",
        description="",
        columns=MappingProxyType({"carrier": "varchar", "delay": "double"}),
        column_descriptions={},
        partition_column=None,
    ),
    version=1,
    entity=("carrier",),
    event_timestamp=None,
    freshness_days=None,
    owner=None,
)


@pytest.mark.parametrize(
    ("current", "breaking", "text"),
    [
        (RECORDED, False, ""),
        (dict(reversed(RECORDED.items())), False, ""),
        (RECORDED | {"more": "INTEGER"}, False, ""),
        ({"carrier": "VARCHAR"}, True, "delay removed or renamed (was DOUBLE)"),
        (RECORDED | {"delay": "INTEGER"}, True, "delay was DOUBLE, is INTEGER"),
        ({"delay": "DOUBLE", "airline": "VARCHAR"}, True, "carrier removed or renamed (was VARCHAR)"),
    ],
)
def test_only_added_columns_keep_a_contract(current: dict[str, str], breaking: bool, text: str) -> None:
    change = compare_contract(RECORDED, current)
    assert change.breaking == breaking
    assert str(change) == text
    assert set(change.added) == set(current) - set(RECORDED)


def test_a_name_in_another_case_is_the_same_column() -> None:
    assert compare_contract(RECORDED, {"Carrier": "VARCHAR", "DELAY": "DOUBLE"}) == compare_contract(RECORDED, RECORDED)
    assert str(compare_contract(RECORDED, {"Carrier": "VARCHAR", "DELAY": "INTEGER"})) == "delay was DOUBLE, is INTEGER"


def test_the_first_build_adds_everything() -> None:
    change = compare_contract({}, RECORDED)
    assert not change.breaking
    assert change.added == RECORDED


def test_a_broken_contract_says_who_breaks_and_what_to_do() -> None:
    change = compare_contract(RECORDED, {"carrier": "VARCHAR"})
    result = check_contract(VIEW, change, solutions=["flight_delay"], live_models=["flight_delay version 3 (champion)"])
    assert not result.passed
    assert result.asset_key is not None
    assert result.asset_key.path == ["features", "history"]
    message = broken_message(VIEW, change, solutions=["flight_delay"], live_models=[])
    assert "Solutions that use it: flight_delay. Live models that read it: none." in message
    assert "history version 2, under `versions:`" in message
