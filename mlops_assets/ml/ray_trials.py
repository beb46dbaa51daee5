"""Trials of a search on a Ray cluster: each is a task, whose fold scores come back one after another."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_assets.ml.pipeline_steps import PipelineStep

if TYPE_CHECKING:
    from mlops_assets.ml.search import FoldScores

LOCAL = "local"
"""The address that means a cluster of this machine's processors, which ends with the search."""


@dataclass(frozen=True)
class RayTrials:
    """Fold scores that are computed on a cluster, and how many processors it has."""

    fold_scores: "FoldScores"
    processors: int


@contextmanager
def on_ray(fold_scores: "FoldScores", address: str) -> Iterator[RayTrials]:
    """Connect to the cluster at `address` and compute `fold_scores` there while the block lasts.

    A task has one processor. One whose worker is gone is done again, at most three times. Raises ConnectionError when no cluster answers.
    The nodes need the packages of this process.
    """
    import ray

    ray.init(address=address, include_dashboard=None, log_to_driver=False, logging_level=logging.WARNING)
    try:
        # Once for the cluster: the closure holds the training rows.
        shared = ray.put(_Boxed(fold_scores))
        task: Any = ray.remote(num_cpus=1, num_returns="streaming", max_retries=3)(_scores)

        def scores(step: PipelineStep) -> Iterator[float]:
            references = task.remote(shared, step)
            try:
                for reference in references:
                    yield ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                # The error of the trial itself, as where it is computed in this process.
                raise error.cause from None
            finally:
                ray.cancel(references)  # a trial that is pruned ends; one that has ended already is left alone

        resources: Any = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield RayTrials(scores, int(resources.get("CPU", 1)))
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class _Boxed:
    fold_scores: Callable[[PipelineStep], Iterator[float]]


def _scores(boxed: _Boxed, step: PipelineStep) -> Iterator[float]:
    """Yield the fold scores of `step`, in a worker of the cluster."""
    yield from boxed.fold_scores(step)
