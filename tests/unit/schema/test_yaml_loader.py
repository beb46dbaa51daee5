from datetime import date

import pytest
import yaml

from mlops_assets.schema.yaml_loader import read_yaml


@pytest.mark.parametrize("value", ["2024-13-01", "2024-02-30", "2024-01-01 25:00:00", "0b_"])
def test_a_value_that_is_none_is_told_with_its_place(value: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError, match="line 2, column 8", check=lambda error: "in quotes" in str(error)):
        read_yaml(f"name: a\nstart: {value}\n")


def test_all_others_are_what_yaml_says() -> None:
    text = "{day: 2024-02-29, count: 7, share: 0.5, name: 2024-13-01x}"
    assert read_yaml(text) == {"day": date(2024, 2, 29), "count": 7, "share": 0.5, "name": "2024-13-01x"}
