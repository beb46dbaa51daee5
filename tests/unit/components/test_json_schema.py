"""The JSON Schema that editors use: it is what the models are, and takes what loads."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dagster_shared.yaml_utils import safe_load_yaml

from mlops_assets.components import json_schema
from mlops_assets.core.project import current_project

FILE = Path(json_schema.__file__).with_name("defs.schema.json")
BUNDLED = sorted(current_project().definitions_directory.glob("*/defs.yaml"))
FIXTURES = Path(__file__).parents[2] / "fixtures" / "solutions"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_file_is_what_the_models_are() -> None:
    assert json.loads(FILE.read_text()) == json_schema.component_schema(), "run docs/generate_reference.py"


@pytest.mark.parametrize("path", [*BUNDLED, *sorted((FIXTURES / "valid").glob("*.yaml"))], ids=lambda path: path.parent.name)
def test_a_file_that_loads_is_valid(validator: Any, path: Path) -> None:
    assert [error.message for error in validator.iter_errors(safe_load_yaml(path.read_text()))] == []


@pytest.mark.parametrize("name", ["unknown_field", "missing_field", "wrong_problem", "wrong_type", "unknown_field_of_a_feature"])
def test_a_wrong_field_is_not(validator: Any, name: str) -> None:
    text = (FIXTURES / "invalid" / f"{name}.yaml").read_text()
    assert list(validator.iter_errors(safe_load_yaml(text)))
    short = text.replace("mlops_assets.components.ml_solution.MLSolution", "mlops_assets.MLSolution")
    assert list(validator.iter_errors(safe_load_yaml(short)))


def test_the_component_of_a_team_is_its_own_affair(validator: Any) -> None:
    assert list(validator.iter_errors(yaml.safe_load("type: shop.components.Prices\nattributes: {prices: [1]}"))) == []


def test_fields_have_their_meaning() -> None:
    holdout = json.loads(FILE.read_text())["$defs"]["Training"]["properties"]["holdout"]
    assert "kept for evaluation" in holdout["description"]
