"""Unit tests mirror the package: the test of a module is found by the path of the module.

A module without a unit test declares and does nothing, or is tested on real parts: a test in tests/integration or tests/solutions names it,
runs it as a command, or uses the stack, which runs it as a program. What is left is a part of another module, whose tests are its own.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
_PACKAGE = _TESTS.parent / "mlops_assets"
_INSTANCES = _PACKAGE / "defs"
"""Sources and solutions: those of tests/solutions are their tests."""

_UNIT_TESTS = sorted(path for path in (_TESTS / "unit").rglob("test_*.py") if path != Path(__file__))
_REAL_TESTS = [path.read_text() for folder in ("integration", "solutions") for path in (_TESTS / folder).rglob("*.py")]
_PARTS = {
    "__init__.py": "unit/components/test_scaffolding.py",
    "clients/aliases.py": "unit/clients/test_model_registry.py",
    "clients/registry_aliases.py": "integration/test_rollback_at_once.py",
    "clients/registry_owner.py": "solutions/test_production.py",
    "clients/tracking_server.py": "unit/clients/test_model_registry.py",
    "components/tagged_models.py": "unit/components/test_dbt_models.py",
    "components/yaml_component.py": "unit/components/test_loading.py",
    "core/environment_values.py": "unit/core/test_settings.py",
    "access/exchange.py": "unit/access/test_guard.py",
    "access/openid.py": "unit/access/test_sign_in.py",
    "access/person_sessions.py": "unit/access/test_sign_in.py",
    "core/origin.py": "unit/components/test_loading.py",
    "deployment/recording.py": "integration/test_rollback_at_once.py",
    "deployment/switching.py": "integration/test_rollback_at_once.py",
    "feature_store/model_problems.py": "unit/feature_store/test_registry.py",
    "features/contract_checks.py": "integration/test_features.py",
    "features/generated/raw_sources.py": "unit/features/generated/test_project_files.py",
    "features/generated/written_models.py": "unit/features/generated/test_project_files.py",
    "features/parity_check.py": "integration/test_online_features.py",
    "features/sql_expressions.py": "unit/components/test_derived_features.py",
    "features/generated/snapshots.py": "integration/test_tables_without_time.py",
    "lake/catalog_format.py": "integration/test_upgrade.py",
    "lake/compaction.py": "integration/test_lake_maintenance.py",
    "features/dbt_storage.py": "integration/test_lake_in_object_storage.py",
    "lake/object_secret.py": "integration/test_lake_in_object_storage.py",
    "lake/kept_snapshots.py": "integration/test_lake_maintenance.py",
    "lake/table_writes.py": "integration/test_lake.py",
    "local/state_parts.py": "integration/test_upgrade.py",
    "maintenance/nightly.py": "solutions/test_maintenance.py",
    "ml/history.py": "unit/ml/test_update_policies.py",
    "ml/figures.py": "unit/ml/test_evaluation_plots.py",
    "ml/monitoring_plots.py": "unit/ml/test_evaluation_plots.py",
    "ml/policy_plot.py": "unit/ml/test_policy_comparison.py",
    "training/labelled_stream.py": "unit/operations/test_policy_comparison.py",
    "monitoring/data_quality_report.py": "solutions/test_flight_delay.py",
    "monitoring/decision_table.py": "unit/monitoring/test_compared_losses.py",
    "monitoring/drift_report.py": "solutions/test_flight_delay.py",
    "monitoring/measures.py": "integration/test_extend.py",
    "training/group_comparison.py": "unit/monitoring/test_groups_report.py",
    "monitoring/performance_report.py": "solutions/test_flight_delay.py",
    "predictions/scored_parts.py": "integration/test_engines.py",
    "predictions/input_arrival.py": "unit/monitoring/test_late_inputs_sensor.py",
    "monitoring/window_performance.py": "unit/monitoring/test_known_performance.py",
    "schema/duration.py": "unit/components/test_loading.py",
    "schema/first_choices.py": "unit/components/test_scaffolding.py",
    "schema/feature_views_section.py": "unit/features/generated/test_rolling_view.py",
    "schema/time_partitions.py": "unit/components/test_loading.py",
    "schema/training_section.py": "unit/components/test_loading.py",
    "sources/arrow_types.py": "unit/sources/test_python_reader.py",
    "sources/csv_header.py": "unit/sources/test_reader.py",
    "sources/delivery_checks.py": "integration/test_raw_deliveries.py",
    "sources/delivery_distributions.py": "unit/sources/test_deliveries.py",
    "sources/delivery_values.py": "unit/sources/test_deliveries.py",
    "sources/extract.py": "unit/sources/test_reader.py",
    "sources/object_storage.py": "integration/test_source_object_storage.py",
    "sources/postgres_reader.py": "integration/test_raw_tables.py",
    "sources/raw_delivery.py": "integration/test_raw_deliveries.py",
    "sources/reader_options.py": "unit/sources/test_python_reader.py",
    "sources/readers.py": "unit/sources/test_python_reader.py",
    "sources/table_checks.py": "integration/test_raw_tables.py",
    "training/dataset_scan.py": "unit/training/test_dataset_checks.py",
    "training/dataset_schema.py": "unit/training/test_dataset_checks.py",
    "training/evidence.py": "unit/training/test_acceptance.py",
    "training/frame_parts.py": "integration/test_engines.py",
}
"""Modules that only another module uses, with the tests that they are tested by."""

_COMMAND_FOLDERS = (_PACKAGE / "cli", _PACKAGE / "operations")


def _module_of(unit_test: Path) -> Path:
    return _PACKAGE / unit_test.relative_to(_TESTS / "unit").parent / unit_test.name.removeprefix("test_")


def _name(module: Path) -> str:
    parts = module.relative_to(_PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def _modules() -> dict[str, Path]:
    return {_name(path): path for path in sorted(_PACKAGE.rglob("*.py")) if not path.is_relative_to(_INSTANCES)}


@cache
def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


def _has_behaviour(module: Path) -> bool:
    """Whether a function of the module does something: those of a protocol have only a docstring or `...`."""
    functions = (node for node in ast.walk(_tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(
        not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for function in functions
        for statement in function.body
    )


def _imported(source: str) -> set[Path]:
    """The modules of the package that `source` imports, or names in full as a program to start."""
    names = set(re.findall(r"mlops_assets(?:\.\w+)+", source))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {_modules()[name] for name in names & _modules().keys()}


def _closure(modules: Iterable[Path], folders: Iterable[Path]) -> set[Path]:
    """The modules with all that they import from `folders`, directly or not."""
    found: set[Path] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += [each for each in _imported(module.read_text()) if any(each.is_relative_to(folder) for folder in folders)]
    return found


def _imported_by_tests() -> set[Path]:
    return set().union(*map(_imported, _REAL_TESTS))


def _run_by_the_stack() -> set[Path]:
    """The programs, all of which the stack of the tests runs, with what each imports from its own folder."""
    programs = [path for path in _modules().values() if path.stem == "__main__" or '__name__ == "__main__"' in path.read_text()]
    return set().union(*(_closure([program], [program.parent]) for program in programs))


def _run_as_commands() -> set[Path]:
    """The modules of commands that a test on real parts runs (`mlops("train", ...)`, `invoke(app, ["diff"`), with what only commands import."""
    commands = {word for source in _REAL_TESTS for word in re.findall(r"\b(?:mlops\(|invoke\(app, \[)\s*\"([a-z-]+)\"", source)}
    modules = [path for path in (_PACKAGE / "cli").glob("*.py") if commands & set(_commands(path))]
    return _closure(modules, _COMMAND_FOLDERS)


def _commands(module: Path) -> Iterator[str]:
    """The names of the commands, and of the groups of commands, that a module of `cli` adds."""
    yield module.stem
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(each) for each in node.decorator_list):
            yield node.name.replace("_", "-")


@pytest.mark.parametrize("unit_test", _UNIT_TESTS, ids=lambda path: str(path.relative_to(_TESTS)))
def test_a_unit_test_has_the_path_of_a_module(unit_test: Path) -> None:
    assert _module_of(unit_test).exists(), "no module has this path: move the file to its module's, or to tests/integration"


def test_a_module_that_does_something_is_tested() -> None:
    tested = (
        {_module_of(unit_test) for unit_test in _UNIT_TESTS} | _imported_by_tests() | _run_by_the_stack() | _run_as_commands()
    )
    untested = [module for module in _modules().values() if module not in tested and _has_behaviour(module)]
    assert [str(module.relative_to(_PACKAGE)) for module in untested] == sorted(_PARTS)


@pytest.mark.parametrize("test", sorted(set(_PARTS.values())))
def test_the_tests_of_parts_are_there(test: str) -> None:
    assert (_TESTS / test).is_file()
