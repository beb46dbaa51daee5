"""YAML files of solutions, valid and invalid ones: what is wrong is said with its place and remedy, and the others still load."""

import importlib
import itertools
import re
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.core.component_tree import ComponentTree

from mlops_assets.components.loading import load_folder, load_folders
from mlops_assets.components.project import platform_definitions
from mlops_assets.core.project import current_project

SOLUTIONS = Path(__file__).parents[2] / "fixtures" / "solutions"
VALID = sorted((SOLUTIONS / "valid").glob("*.yaml"))
INVALID = sorted((SOLUTIONS / "invalid").glob("*.yaml"))
_NUMBERS = itertools.count()


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> dg.Definitions:
    """Load a `defs` package with one folder for each of `files` (folder name -> text of its defs.yaml)."""
    package = f"sandbox_{next(_NUMBERS)}"
    for folder, text in files.items():
        (tmp_path / package / folder).mkdir(parents=True)
        (tmp_path / package / folder / "__init__.py").touch()
        (tmp_path / package / folder / "defs.yaml").write_text(text)
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return dg.Definitions.merge(load_folders(package, tmp_path / package), platform_definitions())


def problems(definitions: dg.Definitions, folder: str) -> list[str]:
    [spec] = [spec for spec in definitions.resolve_all_asset_specs() if spec.key.path == ["configuration_error", folder]]
    return list(spec.metadata["problems"].value)


def solutions(definitions: dg.Definitions) -> set[str]:
    return {spec.key.path[0] for spec in definitions.resolve_all_asset_specs() if len(spec.key.path) == 2}


@pytest.mark.parametrize("folder", ["flight_delay", "nycflights13", "nycflights13_features"])
def test_a_folder_of_the_platforms_components_is_what_dagster_makes_of_it(folder: str) -> None:
    project = current_project()
    path = project.definitions_directory / folder
    ours = specs(load_folder(f"{project.definitions_module}.{folder}", path))
    dagsters = specs(ComponentTree.from_module(importlib.import_module("mlops_assets.defs"), project.root).build_defs(path))
    assert ours == dagsters
    assert ours


def specs(definitions: dg.Definitions) -> dict[str, tuple[dg.AssetSpec, dict[str, str]]]:
    """Each asset, and its metadata with objects by their classes: a translator of dbt equals itself alone."""
    return {
        spec.key.to_user_string(): (
            spec.replace_attributes(metadata={}),
            {name: _comparable(value) for name, value in spec.metadata.items()},
        )
        for asset in definitions.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.specs
    }


def _comparable(value: object) -> str:
    shown = getattr(value, "instance", value)
    return re.sub(r" at 0x\w+", "", repr(shown))


def test_a_folder_with_what_only_dagster_reads_is_loaded_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = VALID[-1].read_text()
    text += "post_processing:\n  assets:\n    - target: '*'\n      attributes: {tags: {team: delays}}\n"
    definitions = load(tmp_path, monkeypatch, {"solution": text})
    stages = [spec for spec in definitions.resolve_all_asset_specs() if spec.key.path[0] == "late_arrival"]
    assert {spec.tags.get("team") for spec in stages} == {"delays"}


def test_a_folder_of_which_only_compiled_bytecode_is_left_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = f"sandbox_{next(_NUMBERS)}"
    (tmp_path / package / "removed" / "__pycache__").mkdir(parents=True)
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert load_folders(package, tmp_path / package).resolve_all_asset_specs() == []


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_solution_has_every_stage(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = load(tmp_path, monkeypatch, {"solution": path.read_text()})
    stages = {spec.key.path[1] for spec in definitions.resolve_all_asset_specs() if spec.key.path[0] == "late_arrival"}
    assert stages >= {"training_dataset", "model", "evaluation", "deployment", "predictions", "outcomes"}
    assert stages >= {"data_quality_report", "drift_report", "performance_report", "monitoring_report"}
    assert "configuration_error" not in solutions(definitions)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_solution_says_where_and_what(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = path.read_text()
    line, _, message = text.splitlines()[0].removeprefix("# expected ").partition(": ")
    [problem] = problems(load(tmp_path, monkeypatch, {"wrong": text}), "wrong")
    assert message in problem
    assert f"defs.yaml:{line}" in problem


def test_every_wrong_field_of_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = VALID[0].read_text().replace("key:", "ky:").replace("holdout:", "houldout:")
    found = problems(load(tmp_path, monkeypatch, {"wrong": text}), "wrong")
    assert len(found) == 2
    assert any("did you mean key?" in problem for problem in found)
    assert any("did you mean holdout" in problem for problem in found)


@pytest.mark.parametrize("name", ["unknown_field", "missing_model", "yaml_syntax"])
def test_the_other_solutions_still_load(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = (SOLUTIONS / "invalid" / f"{name}.yaml").read_text()
    definitions = load(tmp_path, monkeypatch, {"wrong": wrong, "right": VALID[-1].read_text()})
    assert {"late_arrival", "configuration_error"} <= solutions(definitions)
    assert len(problems(definitions, "wrong")) == 1
    dg.Definitions.validate_loadable(definitions)


def test_two_solutions_of_one_name_do_not_take_the_others_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = VALID[-1].read_text()
    other = text.replace("late_arrival", "other")
    definitions = load(tmp_path, monkeypatch, {"first": text, "second": text, "third": other})
    dg.Definitions.validate_loadable(definitions)
    assert {"late_arrival", "other", "configuration_error"} <= solutions(definitions)
    [problem] = problems(definitions, "second")
    assert "late_arrival/challenger" in problem
    assert "first" in problem


@pytest.mark.parametrize("text", ["", "attributes: {}\n", "type: mlops_assets.components.nothing.Nothing\n", "- 1\n"])
def test_a_file_that_is_no_component(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = load(tmp_path, monkeypatch, {"wrong": text, "right": VALID[-1].read_text()})
    assert "late_arrival" in solutions(definitions)
    assert len(problems(definitions, "wrong")) == 1


@pytest.mark.parametrize("column", ["_Source", "_loaded_at", "_orders_event_timestamp", "__mlops_row", "ROW", "Amount"])
def test_a_raw_column_with_a_name_of_the_platform_is_refused(
    column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = column if column == "ROW" else "day"
    text = f"""type: mlops_assets.components.raw_tables.RawTables
attributes:
  owners: [team:trial]
  tables:
    orders:
      description: Orders.
      files: [orders.csv]
      format: csv
      partitions: {{column: {partition}, start: 2024-01-01}}
      columns:
        amount: {{type: double}}
        _score: {{type: double}}
        day: {{type: date}}
        {column}: {{type: date}}
"""
    [problem] = problems(load(tmp_path, monkeypatch, {"wrong": text}), "wrong")
    assert "defs.yaml:14" in problem
    assert column in problem
    assert "rename" in problem


@pytest.mark.parametrize(
    ("bounds", "remedy"),
    [
        ("cadence: weekly, start: 2024-01-03", "Set start to 2024-01-01 to load them, or to 2024-01-08"),
        ("cadence: weekly, start: 2024-01-01, end: 2024-02-01", "Set end to 2024-02-05 to load them, or to 2024-01-29"),
        ("cadence: weekly, start: 2024-01-01, end: 2024-01-03", "Set end to 2024-01-08 to load them"),
        ("cadence: monthly, start: 2024-01-01, end: 2024-03-15", "Set end to 2024-04-01 to load them, or to 2024-03-01"),
        ("cadence: yearly, start: 2023-01-01, end: 2024-06-01", "Set end to 2025-01-01 to load them, or to 2024-01-01"),
    ],
)
@pytest.mark.parametrize("component", ["raw_tables.RawTables", "dbt_models.DbtModels"])
def test_a_bound_within_a_partition_is_refused_with_the_dates_that_fit(
    component: str, bounds: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = {
        "raw_tables.RawTables": f"""
  owners: [team:trial]
  tables:
    orders:
      description: Orders.
      files: [orders.csv]
      format: csv
      columns: {{day: {{type: date}}}}
      partitions: {{column: day, {bounds}}}
""",
        "dbt_models.DbtModels": f"""
  project: dbt_project
  select: tag:features
  partitions: {{{bounds}}}
""",
    }
    text = f"type: mlops_assets.components.{component}\nattributes:{attributes[component]}"
    [problem] = problems(load(tmp_path, monkeypatch, {"wrong": text}), "wrong")
    line = next(number for number, content in enumerate(text.splitlines(), start=1) if "partitions:" in content)
    assert f"defs.yaml:{line}" in problem
    assert problem.endswith(remedy)
