"""The search for the best estimator and parameters with Optuna: which configurations are tried, in what order, and which one wins.

The study lives in a storage that survives the process. Finished trials are never repeated; those that a dead process left behind
are tried again. Each trial draws from a generator of its own, seeded by the plan's seed and the trial's place among the finished
ones, so that a search that was interrupted goes on as it would have (with one job and a budget of trials). What a
configuration is worth is the caller's business: it gives the scores of the folds, one after the other.

Sampler: the tree-structured Parzen estimator of Bergstra et al. (NIPS 2011). Pruner: the median rule of Golovin et al. (KDD 2017).
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlops_assets.ml.pipeline_steps import PipelineStep

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_ORDINAL, _DEFAULT, _STEP, _SCORES, _ERROR, _SECONDS = "ordinal", "default", "step", "fold_scores", "error", "seconds"
_RANDOM_TRIALS = 8
"""Trials at random before the sampler has a model of the space; the default configuration is one of them."""
_UNPRUNED_TRIALS = 5


@dataclass(frozen=True)
class Dimension:
    """Values of one parameter: from `low` to `high` (whole numbers when both are), or one of `choices`."""

    low: int | float | None
    high: int | float | None
    log: bool
    choices: Sequence[Any] | None


@dataclass(frozen=True)
class Candidate:
    """An estimator with fixed parameters and the space of the others."""

    step: PipelineStep
    space: Mapping[str, Dimension]


@dataclass(frozen=True)
class SearchPlan:
    """The candidates of a search and its budget: `trials` finished ones or `seconds` spent on them, `jobs` at once."""

    default: PipelineStep
    candidates: Sequence[Candidate]
    trials: int
    seconds: float | None
    pruning: bool
    jobs: int
    seed: int
    greater_is_better: bool


@dataclass(frozen=True)
class TrialResult:
    """One finished trial: its place, the configuration, its fold scores and their mean (None unless it came to the end)."""

    ordinal: int
    step: PipelineStep
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    fold_scores: tuple[float, ...]
    seconds: float
    error: str | None


@dataclass(frozen=True)
class SearchResult:
    """All finished trials in order; the first is the default configuration. `best` has the best mean over the folds."""

    trials: tuple[TrialResult, ...]
    best: TrialResult
    greater_is_better: bool

    @property
    def default(self) -> TrialResult:
        """The default configuration."""
        return self.trials[0]


FoldScores = Callable[[PipelineStep], Iterator[float]]
"""Gives the score of each fold for a configuration, computing the next one only when asked."""

Report = Callable[[TrialResult, TrialResult], None]
"""Hears of every finished trial, those of earlier processes included, with the best one so far."""


def search(
    plan: SearchPlan, fold_scores: FoldScores, *, storage: "BaseStorage", name: str, report: Report, processors: int | None = None
) -> SearchResult:
    """Run the study `name` in `storage` until the budget of `plan` is spent, and return what was found.

    At most `processors` trials run at once; None means those of this machine. A configuration that raises ValueError or
    ArithmeticError is a failed trial. Raises ValueError when the default does: then the data or the configuration are wrong, not a
    choice of parameters. Nobody else may work on the study at the same time.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED_TRIALS) if plan.pruning else optuna.pruners.NopPruner()
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize" if plan.greater_is_better else "minimize",
        pruner=pruner,
        load_if_exists=True,
    )
    _recover(study)
    results = _finished(study)[: plan.trials]
    for position, result in enumerate(results):
        report(result, _best(results[: position + 1], plan))
    jobs = min(plan.jobs, processors or _processors())
    with _threads(jobs, "blas"), ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[TrialResult], Trial] = {}
        while True:
            while len(running) < jobs and _may_start(plan, results, len(running), jobs):
                places = [result.ordinal for result in results] + [trial.user_attrs[_ORDINAL] for trial in running.values()]
                trial = _ask(study, plan, max(places, default=-1) + 1)
                running[pool.submit(_evaluate, trial, _chosen(trial, plan), fold_scores, jobs)] = trial
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result, trial = future.result(), running.pop(future)
                if result.ordinal == 0 and result.state == "failed":
                    raise ValueError(f"The default configuration {result.step.class_path} fails: {result.error}")
                _tell(study, trial, result)
                results.append(result)
                report(result, _best(results, plan))
    ordered = sorted(results, key=lambda result: result.ordinal)
    return SearchResult(trials=tuple(ordered), best=_best(ordered, plan), greater_is_better=plan.greater_is_better)


def _recover(study: "Study") -> None:
    """Fail what a dead process left running and queue it again; queue the default configuration when it has not finished."""
    from optuna.trial import TrialState

    default_is_there = False
    for trial in study.get_trials(deepcopy=False):
        if _DEFAULT in trial.user_attrs:
            default_is_there |= trial.state in (TrialState.WAITING, TrialState.COMPLETE)
        elif trial.state == TrialState.RUNNING:
            study.enqueue_trial(trial.params)
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
    if not default_is_there:
        study.enqueue_trial({}, user_attrs={_DEFAULT: True})


def _finished(study: "Study") -> list[TrialResult]:
    """Results of the trials that came to an end of their own, in order."""
    from optuna.trial import TrialState

    ended = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state == TrialState.FAIL and _ERROR in trial.user_attrs)
    ]
    return sorted((_result(trial) for trial in ended), key=lambda result: result.ordinal)


def _result(trial: "FrozenTrial") -> TrialResult:
    from optuna.trial import TrialState

    stored = trial.user_attrs
    states: dict[TrialState, Literal["complete", "pruned", "failed"]] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    return TrialResult(
        ordinal=stored[_ORDINAL],
        step=PipelineStep.from_mapping(stored[_STEP]),
        state=states[trial.state],
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        fold_scores=tuple(stored[_SCORES]),
        seconds=stored[_SECONDS],
        error=stored.get(_ERROR),
    )


def _may_start(plan: SearchPlan, results: Sequence[TrialResult], running: int, jobs: int) -> bool:
    if len(results) + running >= plan.trials:
        return False
    if not results:
        # The default comes first and alone: nothing else matters when it fails.
        return not running
    return plan.seconds is None or sum(result.seconds for result in results) / jobs < plan.seconds


def _ask(study: "Study", plan: SearchPlan, ordinal: int) -> "Trial":
    import optuna

    seed = int(np.random.SeedSequence((plan.seed, ordinal)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS, constant_liar=plan.jobs > 1)
    trial = study.ask()
    trial.set_user_attr(_ORDINAL, ordinal)
    return trial


def _chosen(trial: "Trial", plan: SearchPlan) -> PipelineStep:
    """The configuration of a trial: the default, or a candidate with values from its space."""
    if trial.user_attrs.get(_DEFAULT):
        return plan.default
    number = trial.suggest_categorical("candidate", list(range(len(plan.candidates))))
    candidate = plan.candidates[number]
    values = {name: _suggest(trial, f"{number}.{name}", dimension) for name, dimension in candidate.space.items()}
    return PipelineStep(candidate.step.class_path, {**candidate.step.parameters, **values})


def _suggest(trial: "Trial", name: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:
        # By position: a choice may be a list, which Optuna does not store.
        return dimension.choices[trial.suggest_categorical(name, list(range(len(dimension.choices))))]
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_float(name, float(dimension.low or 0), float(dimension.high or 0), log=dimension.log)


def _evaluate(trial: "Trial", step: PipelineStep, fold_scores: FoldScores, jobs: int) -> TrialResult:
    """Score the folds until the end or until the pruner gives up; runs in a thread of the pool."""
    began = time.perf_counter()
    scores: list[float] = []
    state: Literal["complete", "pruned", "failed"] = "complete"
    error = None
    with _threads(jobs, "openmp"):
        try:
            for number, score in enumerate(fold_scores(step)):
                scores.append(score)
                trial.report(math.fsum(scores) / len(scores), number)
                if trial.should_prune():
                    state = "pruned"
                    break
        except (ValueError, ArithmeticError) as failure:
            state, error = "failed", f"{type(failure).__name__}: {failure}"
    value = math.fsum(scores) / len(scores) if state == "complete" else None
    return TrialResult(
        ordinal=trial.user_attrs[_ORDINAL],
        step=step,
        state=state,
        value=value,
        fold_scores=tuple(scores),
        seconds=time.perf_counter() - began,
        error=error,
    )


def _tell(study: "Study", trial: "Trial", result: TrialResult) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr(_STEP, {"class": result.step.class_path, "parameters": dict(result.step.parameters)})
    trial.set_user_attr(_SCORES, list(result.fold_scores))
    trial.set_user_attr(_SECONDS, result.seconds)
    if result.error is not None:
        trial.set_user_attr(_ERROR, result.error)
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    study.tell(trial, result.value, state=states[result.state])


def _best(results: Sequence[TrialResult], plan: SearchPlan) -> TrialResult:
    """The best complete trial; of equal ones the first."""
    sign = 1 if plan.greater_is_better else -1
    complete = [result for result in results if result.value is not None]
    return max(complete, key=lambda result: (sign * float(result.value or 0), -result.ordinal))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(jobs: int, api: Literal["openmp", "blas"]) -> AbstractContextManager[object]:
    """Divides the processors among several jobs. OpenMP's limit belongs to the thread that fits, that of BLAS to the process."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=max(1, _processors() // jobs), user_api=api) if jobs > 1 else nullcontext()
