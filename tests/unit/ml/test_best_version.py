"""The lead of the best version through a chain of versions that were each compared with the one before on the same rows."""

import numpy as np
import pytest

from mlops_assets.ml.best_version import Lead, leads_over_candidate
from mlops_assets.ml.bootstrap import Interval
from mlops_assets.ml.comparison import MetricDifference

ERROR = 0.002


def difference(loss: float, metric: str = "roc_auc") -> dict[str, MetricDifference]:
    """A candidate that loses so much to the champion, as the evaluation measures it."""
    value = loss if metric == "log_loss" else -loss
    width = 1.959964 * ERROR
    return {metric: MetricDifference(metric, 0.7 + value, 0.7, value, Interval(value - width, value + width))}


def chain(losses: list[float]) -> dict[str, Lead]:
    """The leads over the last of versions 2, 3, ... that each lose so much to the one before."""
    leads: dict[str, Lead] = {}
    for version, loss in enumerate(losses, start=1):
        leads = leads_over_candidate(leads, version, difference(loss))
    return leads


def test_losses_that_a_gate_tolerates_add_up_to_the_lead_of_the_first_version() -> None:
    lead = chain([0.004] * 9)["roc_auc"]
    assert lead.version == 1
    assert lead.loss == pytest.approx(0.036)
    assert lead.certain == pytest.approx(0.036 - 2.326348 * 3 * ERROR)
    # One of them is within chance.
    assert chain([0.004])["roc_auc"].certain == 0


def test_a_version_that_is_better_than_the_best_leads_itself() -> None:
    assert chain([0.004] * 9 + [-0.04]) == {}
    assert chain([0.004] * 9 + [-0.04, 0.01])["roc_auc"].version == 11
    # Better than its champion and worse than the best: the first leads still.
    assert chain([0.004] * 9 + [-0.01])["roc_auc"].version == 1


def test_where_smaller_is_better_a_greater_loss_leads_too() -> None:
    lead = leads_over_candidate({}, 4, difference(0.02, "log_loss"))["log_loss"]
    assert (lead.version, lead.loss) == (4, pytest.approx(0.02))


def test_a_metric_without_a_comparison_has_no_lead() -> None:
    undefined = {"roc_auc": MetricDifference("roc_auc", None, 0.7, None, None)}
    assert leads_over_candidate(chain([0.02]), 2, undefined) == {}


def test_of_versions_that_are_equal_none_leads_by_what_would_move_a_limit() -> None:
    random = np.random.default_rng(0)
    leads = [chain(list(random.normal(0, ERROR, 30))) for _ in range(200)]
    certain = np.array([lead["roc_auc"].certain if lead else 0.0 for lead in leads])
    assert np.mean(certain > 0) < 0.1
    assert np.mean(certain) < ERROR / 5
