"""What the checks of a dataset said in an earlier, real run."""

from datetime import date

import dagster as dg
from clinic import solution_inputs

from mlops_assets.core import check_rules
from mlops_assets.core.keys import TRAINING_DATASET
from mlops_assets.training.dataset_checks import RULES
from mlops_assets.training.recorded_checks import DatasetState, dataset_state

INPUTS = solution_inputs("daily")
KEY = INPUTS.key(TRAINING_DATASET)
DAY = date(2020, 1, 10)


def write(instance: dg.DagsterInstance, *, failing: set[str], rules: list[check_rules.CheckRule], day: date = DAY) -> str:
    @dg.asset(key=KEY, partitions_def=INPUTS.partitions, check_specs=[rule.spec(KEY) for rule in rules])
    def dataset() -> dg.MaterializeResult:
        results = [
            rule.result(KEY, passed=rule.name not in failing, metadata=dict.fromkeys(rule.evidence.names, 1), description=None)
            for rule in rules
        ]
        return dg.MaterializeResult(check_results=results)

    return dg.materialize([dataset], partition_key=day.isoformat(), instance=instance, raise_on_error=False).run_id


def state(instance: dg.DagsterInstance) -> DatasetState:
    return dataset_state(instance, INPUTS, DAY, unchanged=True)


def test_a_dataset_that_was_never_written_lacks_every_blocking_check() -> None:
    found = state(dg.DagsterInstance.ephemeral())
    assert (found.run_id, found.passed, found.failed) == (None, (), ())
    assert set(found.missing) == {rule.name for rule in RULES if rule.blocking}


def test_the_last_run_of_the_training_date_counts() -> None:
    instance = dg.DagsterInstance.ephemeral()
    rules = list(RULES)
    first = write(instance, failing={"row_count", "constant_columns"}, rules=rules)
    write(instance, failing={"schema"}, rules=rules, day=date(2020, 1, 11))
    found = state(instance)
    assert (found.run_id, found.failed, found.warned, found.missing) == (first, ("row_count",), ("constant_columns",), ())
    second = write(instance, failing=set(), rules=rules)
    found = state(instance)
    assert (found.run_id, found.failed, found.warned) == (second, (), ())
    assert set(found.passed) == {rule.name for rule in rules}


def test_a_check_that_did_not_run_is_missing_whatever_an_earlier_run_said() -> None:
    instance = dg.DagsterInstance.ephemeral()
    write(instance, failing=set(), rules=list(RULES))
    write(instance, failing=set(), rules=[check_rules.SCHEMA])
    found = state(instance)
    assert found.passed == ("schema",)
    assert set(found.missing) == {rule.name for rule in RULES if rule.blocking} - {"schema"}
