"""What a training is asked for: overrides as they are written, and the date that uses all data there is."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
from asset_states import asset
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.core.errors import StackError
from mlops_assets.operations.training import check_overrides, default_training_date, newest_dataset_date, parse_override


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("training.seed=3", "training.seed", 3),
        ("training.window= 60d", "training.window", "60d"),
        (" training.x =a=b", "training.x", "a=b"),
        ("training.search={trials: 3}", "training.search", {"trials": 3}),
        ("training.candidates=[]", "training.candidates", []),
        ("training.x=", "training.x", None),
        ("training.x=2024-01-01", "training.x", date(2024, 1, 1)),
    ],
)
def test_a_value_is_read_as_in_the_file(text: str, name: str, value: Any) -> None:
    assert parse_override(text) == (name, value)


@pytest.mark.parametrize(
    "text", ["", "training.seed", "=3", "training.x=[1", "training.x={a", "training.x=!!python/object:os.x {}"]
)
def test_what_is_no_override_is_a_message(text: str) -> None:
    with pytest.raises(StackError, match=r"is no override|is no YAML"):
        parse_override(text)


def test_overrides_are_checked_as_the_file_is() -> None:
    assert check_overrides("flight_delay", {"training.seed": 7}).training.seed == 7
    for overrides, words in (
        ({"training.sed": 7}, "sed"),
        ({"training.window": "60d"}, "decides the dataset"),
        ({"owners": ["team:test"]}, "owners"),
    ):
        with pytest.raises(StackError, match=words):
            check_overrides("flight_delay", overrides)


class Partitions(DagsterClient):
    """A client that knows the partition keys of every asset."""

    def __init__(self, keys: Sequence[str]):
        self.keys = list(keys)

    def partition_keys(self, key: str) -> list[str]:
        return self.keys


DAYS = [f"2024-01-{day:02}" for day in range(1, 32)]


@settings(max_examples=50)
@given(st.lists(st.sampled_from(DAYS[:-1]), min_size=1, max_size=4))
def test_the_training_date_is_the_first_after_all_data(ends: list[str]) -> None:
    needed = [
        asset(f"features/{number}", ranges=(("2023-12-01", "2023-12-05"), ("2024-01-01", end))) for number, end in enumerate(ends)
    ]
    dataset = asset("x/training_dataset", *(each.key for each in needed), "gone")
    chosen = default_training_date(Partitions(DAYS), {each.key: each for each in (dataset, *needed)}, "x", has_time=True)
    assert chosen == DAYS[DAYS.index(max(ends)) + 1]


def test_at_the_end_of_time_the_last_partition_is_the_date() -> None:
    assets = {"x/training_dataset": asset("x/training_dataset", "a"), "a": asset("a", ranges=((DAYS[0], DAYS[-1]),))}
    assert default_training_date(Partitions(DAYS), assets, "x", has_time=True) == DAYS[-1]


def test_without_data_it_is_said_so() -> None:
    assets = {"x/training_dataset": asset("x/training_dataset", "a"), "a": asset("a")}
    with pytest.raises(StackError, match="There is no data for x yet"):
        default_training_date(Partitions(DAYS), assets, "x", has_time=True)
    with pytest.raises(StackError, match="There is no training dataset of x yet"):
        newest_dataset_date(assets, "x")
    trained = {
        "x/training_dataset": asset("x/training_dataset", ranges=(("2024-01-03", "2024-01-04"), ("2024-01-01", "2024-01-01")))
    }
    assert newest_dataset_date(trained, "x") == "2024-01-04"
