"""Check rules: what a failure stops, and that every result is complete evidence: what was measured, the bound, and what failed."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from clinic import solution_inputs

import mlops_assets
from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import CheckRule, Evidence, PartitionCheckResult
from mlops_assets.schema.gates_section import Gates
from mlops_assets.training.gate import GATES, gate_rules

PACKAGE = Path(mlops_assets.__file__).parent
KEY = dg.AssetKey("table")
EVIDENCE = Evidence(measured=("rows",), bound=("limit",), no_examples="Rows that are lacking cannot be shown.")

MAKERS = {
    "core/check_rules.py": "where every rule makes its specs and results",
    "deployment/served_version_check.py": "a check without an asset of its own: its result is made by the rule",
    "features/dbt_translation.py": "names the checks of dbt's data tests",
    "features/dbt_models.py": "names the checks of dbt's data tests",
}
"""Modules that make the spec or the result of a check by themselves, and why. dagster-dbt makes the results of dbt's data tests: the
number of failing rows, of which none may fail, and the compiled query that selects them."""


def modules() -> Iterator[str]:
    for module in pkgutil.walk_packages([str(PACKAGE)], "mlops_assets."):
        if not module.name.startswith(("mlops_assets.defs", "mlops_assets.serving.stream.__main__")):
            yield module.name


def declared_rules() -> dict[str, CheckRule]:
    """The rules that stand in modules, by the name of the module and the check."""
    rules = {}
    for name in modules():
        module = importlib.import_module(name)
        for each in vars(module).values():
            if isinstance(each, CheckRule):
                rules[f"{each.name}, {each.evidence.names}"] = each
    return rules


def rules_of_gates() -> list[CheckRule]:
    """The rules of all built-in gates."""
    solution = solution_inputs("daily").solution
    gates = Gates.model_validate(
        {
            "floor": {"roc_auc": 0.5},
            "slices": ["age"],
            "worst_slice": {"roc_auc": 0.4},
            "groups": {"accuracy": 0.05},
            "maximum_calibration_error": 0.1,
        }
    )
    rules = gate_rules(solution.model_copy(update={"gates": gates}), own=False)
    assert {rule.name for rule in rules} == {name for name in GATES.names() if GATES.is_own(name)}
    return rules


def test_every_rule_names_what_it_measures_its_bound_and_its_examples() -> None:
    rules = [*declared_rules().values(), *rules_of_gates()]
    assert len(rules) > 30
    for rule in rules:
        assert rule.evidence.measured, rule.name
        assert rule.evidence.bound, rule.name
        assert bool(rule.evidence.examples) != bool(rule.evidence.no_examples), rule.name


def test_no_module_makes_a_check_or_a_result_that_has_no_rule() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "dg.AssetCheckResult",
                "dg.AssetCheckSpec",
                "dg.asset_check",
            ):
                found.add(path.relative_to(PACKAGE).as_posix())
    # A copy of a result with further evidence.
    copies = {name for name in found if name.startswith("sources/")}
    assert found - copies <= set(MAKERS)


@pytest.mark.parametrize(
    "lacking",
    [
        {"measured": (), "bound": ("limit",), "examples": ("rows",)},
        {"measured": ("share",), "bound": (), "examples": ("rows",)},
        {"measured": ("share",), "bound": ("limit",)},
        {"measured": ("share",), "bound": ("limit",), "examples": ("rows",), "no_examples": "None."},
    ],
)
def test_evidence_that_lacks_a_part_is_refused(lacking: dict) -> None:
    with pytest.raises(ValueError, match="name what is measured and its bound"):
        Evidence(**lacking)


def test_a_result_without_its_evidence_is_refused() -> None:
    rule = CheckRule("rule", "", blocking=True, evidence=Evidence(measured=("share",), bound=("limit",), examples=("rows",)))
    with pytest.raises(ValueError, match="The result of the check rule lacks its evidence: limit, rows"):
        rule.result(KEY, passed=True, metadata={"share": 1.0}, description=None)


def test_a_failure_that_has_no_rows_to_show_tells_why() -> None:
    evidence = Evidence(measured=("share",), bound=("limit",), no_examples="It is a whole.")
    rule = CheckRule("rule", "", blocking=True, evidence=evidence)
    metadata = {"share": 1.0, "limit": 0.5}
    failed = rule.result(KEY, passed=False, metadata=metadata, description=None)
    assert failed.metadata["no_examples"].value == "It is a whole."
    assert "no_examples" not in rule.result(KEY, passed=True, metadata=metadata, description=None).metadata


@pytest.mark.parametrize("blocking", [True, False])
def test_a_failure_stops_what_follows_only_when_the_rule_blocks(blocking: bool) -> None:
    rule = CheckRule(name="sound", description="It is sound.", blocking=blocking, evidence=EVIDENCE)

    @dg.asset(check_specs=[rule.spec(dg.AssetKey("first"))])
    def first() -> dg.MaterializeResult:
        failed = rule.result(dg.AssetKey("first"), passed=False, metadata={"rows": 3, "limit": 0}, description="3 rows are not")
        return dg.MaterializeResult(check_results=[failed])

    @dg.asset(deps=[first])
    def second() -> None:
        """Follow."""

    instance = dg.DagsterInstance.ephemeral()
    result = dg.materialize([first, second], instance=instance, raise_on_error=False)
    assert (instance.get_latest_materialization_event(dg.AssetKey("second")) is None) is blocking
    assert result.success is not blocking
    [evaluation] = result.get_asset_check_evaluations()
    assert evaluation.severity is (dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN)
    assert (evaluation.description, evaluation.metadata["rows"].value) == ("3 rows are not", 3)


def test_a_result_of_a_partition_is_the_result_with_its_partition() -> None:
    rule = CheckRule(name="sound", description="It is sound.", blocking=True, evidence=EVIDENCE)
    result = rule.result(dg.AssetKey(["a", "b"]), passed=False, metadata={"rows": 2, "limit": 0}, description="2 keys")
    of_partition = PartitionCheckResult.from_result(result, "2024-01-01")
    assert of_partition.partition == "2024-01-01"
    assert of_partition._asdict() == result._asdict()


def test_the_name_of_a_rule_is_its_own() -> None:
    rules = [rule for rule in vars(check_rules).values() if isinstance(rule, CheckRule)]
    assert len({rule.name for rule in rules}) == len(rules) > 20
