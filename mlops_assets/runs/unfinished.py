"""Unfinished runs: the statuses that a sensor looks at before it launches another run."""

from dagster import DagsterRunStatus

UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
"""The statuses of a run that has not ended."""
