"""Promotion of a version across environments: a copy, judged and deployed by the environment that it comes to."""

from collections.abc import Callable, Sequence
from functools import partial

from mlops_assets.clients.champion import registered_champion
from mlops_assets.clients.dagster_client import RunState
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import Settings
from mlops_assets.operations.training import CopiedModel, TrainingOutcome, train
from mlops_assets.training.copied_version import read_original


def promote_from(
    settings: Settings,
    solution: str,
    *,
    environment: str,
    version: int | None,
    date: str | None,
    segment: str | None,
    reason: str,
    report: Callable[[RunState, Sequence[str]], None],
) -> TrainingOutcome:
    """Copy a version of `environment` (its champion where none is named), run all gates on the data here, and deploy it when they pass.

    The hold-out is that of `date`: without one the later of the dates for which the version and the champion here were trained, so that both
    can be compared on it. Raises StackError when the version cannot be read there, or the run cannot be started.
    """
    original = read_original(environment, solution, version, segment)
    # The rows of a segment without a model of its own are predicted by that of all rows.
    champions = (patiently(partial(registered_champion, settings, solution, of)) for of in dict.fromkeys((segment, None)))
    champion = next(filter(None, champions), None)
    dates = [original.record.training.training_date.isoformat(), *([champion.tags[TRAINING_DATE_TAG]] if champion else [])]
    return train(
        settings,
        solution,
        date=date or max(dates),
        segment=segment,
        overrides={},
        recalibrate=False,
        copied=CopiedModel(environment, original.model.version, reason),
        deploy=True,
        report=report,
    )
