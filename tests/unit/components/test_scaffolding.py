"""What `dg scaffold defs` writes, by the function that it calls."""

import json
from pathlib import Path

import pytest
import yaml
from dagster.components.component_scaffolding import scaffold_object

import mlops_assets


def scaffold(folder: Path, component: str, **parameters: str) -> dict:
    path = folder / "late_orders"
    name = f"mlops_assets.{component}"
    scaffold_object(path, name, json.dumps(parameters) if parameters else None, "yaml", project_root=folder)
    content = yaml.safe_load((path / "defs.yaml").read_text())
    assert content["type"] == name
    # By the short name, as Dagster loads it.
    getattr(mlops_assets, component).get_model_cls().model_validate(content["attributes"])
    return content["attributes"]


@pytest.mark.parametrize("component", ["RawTables", "DbtModels", "MLSolution"])
def test_the_file_is_valid_and_found_by_its_short_name(tmp_path: Path, component: str) -> None:
    assert component in dir(mlops_assets)
    scaffold(tmp_path, component)


@pytest.mark.parametrize("problem", ["binary_classification", "multiclass_classification", "regression"])
def test_a_solution_has_the_estimator_of_its_problem(tmp_path: Path, problem: str) -> None:
    attributes = scaffold(tmp_path, "MLSolution", problem=problem, table="orders", label="late")
    assert attributes["name"] == "late_orders"
    assert (attributes["spine"]["table"], attributes["spine"]["label"]) == ("orders", "late")
    assert attributes["training"]["estimator"]["type"].endswith("Regressor" if problem == "regression" else "Classifier")


def test_a_component_is_added_to_a_file(tmp_path: Path) -> None:
    scaffold(tmp_path, "RawTables", table="orders")
    path = tmp_path / "late_orders" / "defs.yaml"
    scaffold_object(path, "mlops_assets.MLSolution", None, "yaml", project_root=tmp_path, append=True)
    assert [document["attributes"].get("name") for document in yaml.safe_load_all(path.read_text())] == [None, "late_orders"]


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="described in YAML"):
        scaffold_object(tmp_path / "x", "mlops_assets.MLSolution", None, "python", project_root=tmp_path)
