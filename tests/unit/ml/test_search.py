import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.search import Candidate, Dimension, SearchPlan, SearchResult, TrialResult, search

PLAN = SearchPlan(
    default=PipelineStep("a", {"x": 0.9}),
    candidates=[
        Candidate(
            PipelineStep("a", {"fixed": 1}),
            {"x": Dimension(0.0, 1.0, False, None), "k": Dimension(1, 20, False, None)},
        ),
        Candidate(
            PipelineStep("b", {}), {"x": Dimension(0.001, 1.0, True, None), "w": Dimension(None, None, False, [None, [1, 2]])}
        ),
    ],
    trials=20,
    seconds=None,
    pruning=False,
    jobs=1,
    seed=0,
    greater_is_better=True,
)


class Interrupted(BaseException):
    """What ends a process in the middle of a trial."""


class Valley:
    """Fold scores that are best at x = 0.2 of the class b; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[PipelineStep] = []
        self.folds = 0
        self.dies_at: int | None = None

    def __call__(self, step: PipelineStep) -> Iterator[float]:
        if len(self.asked) == self.dies_at:
            raise Interrupted
        self.asked.append(step)
        for fold in range(3):
            self.folds += 1
            yield -((step.parameters["x"] - 0.2) ** 2) + (0.5 if step.class_path == "b" else 0.0) + fold / 100


def run(
    plan: SearchPlan, valley: Valley, storage: object, heard: list[tuple[TrialResult, TrialResult]] | None = None
) -> SearchResult:
    return search(
        plan,
        valley,
        storage=storage,  # type: ignore[arg-type]
        name="study",
        report=lambda trial, best: (heard if heard is not None else []).append((trial, best)),
    )


def outcome(result: SearchResult) -> list[tuple[PipelineStep, float | None]]:
    return [(trial.step, trial.value) for trial in result.trials]


def test_the_default_comes_first_and_the_best_is_not_worse() -> None:
    valley, heard = Valley(), []
    result = run(PLAN, valley, InMemoryStorage(), heard)
    assert valley.asked[0] == PLAN.default
    assert result.default.step == PLAN.default
    assert result.default.value == pytest.approx(-(0.7**2) + 0.01)
    assert len(result.trials) == 20
    assert result.best.value == max(trial.value or 0 for trial in result.trials)
    assert result.best.step.class_path == "b"
    assert result.best.step.parameters["x"] == pytest.approx(0.2, abs=0.1)
    assert [trial.ordinal for trial, _ in heard] == list(range(20))
    values = [best.value for _, best in heard]
    assert values == sorted(values)


def test_values_come_from_the_space_and_fixed_parameters_stay() -> None:
    result = run(replace(PLAN, trials=30), Valley(), InMemoryStorage())
    for trial in result.trials[1:]:
        values = trial.step.parameters
        if trial.step.class_path == "a":
            assert values["fixed"] == 1
            assert isinstance(values["k"], int)
            assert 1 <= values["k"] <= 20
        else:
            assert values["w"] in (None, [1, 2])
        assert 0 <= values["x"] <= 1
        json.dumps(dict(values))


def test_less_can_be_better() -> None:
    def loss(step: PipelineStep) -> Iterator[float]:
        yield (step.parameters["x"] - 0.2) ** 2

    result = search(
        replace(PLAN, greater_is_better=False), loss, storage=InMemoryStorage(), name="study", report=lambda trial, best: None
    )
    assert result.best.value == min(trial.value for trial in result.trials if trial.value is not None)


def test_the_same_seed_tries_the_same() -> None:
    first = outcome(run(PLAN, Valley(), InMemoryStorage()))
    assert outcome(run(PLAN, Valley(), InMemoryStorage())) == first
    assert outcome(run(replace(PLAN, seed=1), Valley(), InMemoryStorage())) != first


@pytest.mark.parametrize("dies_at", [0, 1, 11])
def test_an_interrupted_search_goes_on_where_it_was(dies_at: int, tmp_path) -> None:
    expected = run(PLAN, Valley(), InMemoryStorage())
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    dying = Valley()
    dying.dies_at = dies_at
    with pytest.raises(Interrupted):
        run(PLAN, dying, storage)
    rest, heard = Valley(), []
    result = run(PLAN, rest, JournalStorage(JournalFileBackend(str(tmp_path / "journal"))), heard)
    assert outcome(result) == outcome(expected)
    assert result.best.step == expected.best.step
    assert len(dying.asked) + len(rest.asked) == 20
    assert len(heard) == 20


def test_a_finished_search_is_only_read_and_a_larger_budget_continues_it() -> None:
    storage, valley = InMemoryStorage(), Valley()
    first = run(replace(PLAN, trials=10), valley, storage)
    assert run(replace(PLAN, trials=10), valley, storage) == first
    assert len(valley.asked) == 10
    longer = run(PLAN, valley, storage)
    assert len(valley.asked) == 20
    assert longer.trials[:10] == first.trials
    assert outcome(longer) == outcome(run(PLAN, Valley(), InMemoryStorage()))
    # And a smaller one is what it would have been.
    assert run(replace(PLAN, trials=10), valley, storage) == first


def test_pruning_saves_folds_and_keeps_the_default() -> None:
    plain, pruned = Valley(), Valley()
    run(PLAN, plain, InMemoryStorage())
    result = run(replace(PLAN, pruning=True), pruned, InMemoryStorage())
    states = {trial.state for trial in result.trials}
    assert states == {"complete", "pruned"}
    assert pruned.folds < plain.folds == 60
    assert result.default.state == "complete"
    assert result.best.state == "complete"
    assert all(trial.value is None and len(trial.fold_scores) < 3 for trial in result.trials if trial.state == "pruned")


def test_a_configuration_that_fails_is_a_failed_trial() -> None:
    def scores(step: PipelineStep) -> Iterator[float]:
        if step.class_path == "b":
            raise ValueError("b does not work")
        yield 1 - step.parameters["x"]

    result = search(PLAN, scores, storage=InMemoryStorage(), name="study", report=lambda trial, best: None)
    failed = [trial for trial in result.trials if trial.state == "failed"]
    assert len(result.trials) == 20
    assert failed
    assert {trial.error for trial in failed} == {"ValueError: b does not work"}
    assert result.best.step.class_path == "a"


def test_a_default_that_fails_ends_the_search_and_is_tried_again_later() -> None:
    def scores(step: PipelineStep) -> Iterator[float]:
        raise ValueError("the column is missing")
        yield 0.0

    storage = InMemoryStorage()
    with pytest.raises(ValueError, match="The default configuration a fails: ValueError: the column is missing"):
        search(PLAN, scores, storage=storage, name="study", report=lambda trial, best: None)
    assert outcome(run(PLAN, Valley(), storage)) == outcome(run(PLAN, Valley(), InMemoryStorage()))


def test_no_trial_begins_after_the_time_is_spent() -> None:
    result = run(replace(PLAN, seconds=1e-9), Valley(), InMemoryStorage())
    assert len(result.trials) == 1


def test_several_jobs_that_were_interrupted_keep_places_of_their_own(tmp_path) -> None:
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    dying = Valley()
    dying.dies_at = 7
    with pytest.raises(Interrupted):
        run(replace(PLAN, jobs=2), dying, storage)
    result = run(replace(PLAN, jobs=2), Valley(), storage)
    assert len(result.trials) == 20
    assert len({trial.ordinal for trial in result.trials}) == 20


def test_several_jobs_spend_the_same_budget() -> None:
    valley = Valley()
    result = run(replace(PLAN, jobs=2), valley, InMemoryStorage())
    assert len(valley.asked) == 20
    assert sorted(trial.ordinal for trial in result.trials) == list(range(20))
    assert result.best.value == max(trial.value or 0 for trial in result.trials)
