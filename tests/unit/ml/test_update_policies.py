"""What policies decide on given facts, and that they say why with numbers."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from mlops_assets.ml.history import History
from mlops_assets.ml.loss_comparison import WindowLosses
from mlops_assets.ml.retraining import WindowResult
from mlops_assets.ml.service_comparison import CHAMPION, PREVIOUS, RECALIBRATED
from mlops_assets.ml.training_forecast import OLDER, YOUNGER
from mlops_assets.ml.update_policies import (
    PLAIN,
    LossPolicy,
    NeverPolicy,
    PeriodicPolicy,
    ReportPolicy,
    UpdateFacts,
)

DAY = date(2024, 6, 3)
POLICY = LossPolicy(histories=(History(days=70), History()), cooldown=14, maximum_age=180)


def windows(count: int = 6, **means: float) -> Sequence[WindowLosses]:
    """Weeks of 100 rows a day with these mean losses, a little different from day to day."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        shared = random.normal(0, 0.02, 7)
        sums = {name: 100 * (mean + shared + random.normal(0, 0.005, 7)) for name, mean in means.items()}
        made.append(WindowLosses(sums=sums, rows=np.full(7, 100)))
    return made


def result(weeks: int, *, alert: bool) -> WindowResult:
    return WindowResult(
        start=DAY - timedelta(weeks=weeks),
        drifted_share=None,
        metric="roc_auc",
        estimated=None,
        realised=0.7,
        limit=0.75,
        alert=alert,
        complete=True,
    )


FACTS = UpdateFacts(
    day=DAY,
    windows=windows(**{PLAIN: 0.5, CHAMPION: 0.5, PREVIOUS: 0.52, RECALIBRATED: 0.5}),
    ages=(),
    results=[result(weeks, alert=False) for weeks in (3, 2, 1)],
    trained_for=DAY - timedelta(days=60),
    attempted=DAY - timedelta(days=60),
    reference=WindowLosses(
        sums={PLAIN: np.concatenate([window.sums[PLAIN] for window in windows(12, **{PLAIN: 0.5})])}, rows=np.full(84, 100)
    ),
    window_days=7,
    new_rows=2000,
)


def test_a_model_that_loses_as_expected_is_kept():
    assert POLICY.decide(FACTS).action == "keep"


def test_the_model_before_comes_back_when_it_loses_less():
    facts = replace(FACTS, windows=windows(**{PLAIN: 0.5, CHAMPION: 0.5, PREVIOUS: 0.45}), trained_for=DAY - timedelta(days=42))
    decision = POLICY.decide(facts)
    assert decision.action == "roll back"
    assert "+0.05" in decision.reason
    assert "rows of 6 windows" in decision.reason
    assert replace(POLICY, rolls_back=False).decide(facts).action == "keep"
    assert replace(POLICY, watch=5).decide(facts).action == "keep"
    assert POLICY.decide(replace(facts, windows=facts.windows[:1])).action == "keep"


def test_a_loss_that_rose_asks_for_a_training_with_every_history():
    decision = POLICY.decide(replace(FACTS, windows=windows(**{PLAIN: 0.7, CHAMPION: 0.7})))
    assert (decision.action, decision.histories) == ("retrain", POLICY.histories)
    assert "rose" in decision.reason


def test_a_rise_that_does_not_matter_asks_for_nothing():
    facts = replace(FACTS, windows=windows(20, **{PLAIN: 0.52, CHAMPION: 0.52}))
    assert POLICY.decide(facts).action == "keep"
    assert replace(POLICY, effect=0.01).decide(facts).action == "retrain"


def test_no_training_follows_another_one_at_once():
    facts = replace(FACTS, windows=windows(**{PLAIN: 0.7, CHAMPION: 0.7}), attempted=DAY - timedelta(days=7))
    assert POLICY.decide(facts).action == "keep"


@pytest.mark.parametrize(("a_day", "action"), [(0.0002, "keep"), (0.005, "retrain")])
def test_a_training_that_pays_is_made(a_day: float, action: str):
    facts = replace(FACTS, ages=windows(**{YOUNGER: 0.02, OLDER: 0.02 + a_day}))
    decision = POLICY.decide(facts)
    assert decision.action == action
    assert decision.histories == (POLICY.histories[:1] if action == "retrain" else ())


def test_a_model_that_is_no_longer_calibrated_is_recalibrated():
    facts = replace(FACTS, windows=windows(**{PLAIN: 0.5, CHAMPION: 0.5, RECALIBRATED: 0.46}))
    assert POLICY.decide(facts).action == "recalibrate"


def test_age_is_a_reason_by_itself():
    facts = replace(FACTS, trained_for=DAY - timedelta(days=180), attempted=DAY - timedelta(days=180))
    assert POLICY.decide(facts).reason == "the model is 180 days old"
    assert replace(POLICY, maximum_age=None).decide(facts).action == "keep"


def test_a_training_every_period():
    policy = PeriodicPolicy(days=28, histories=(History(),))
    assert policy.decide(FACTS).action == "retrain"
    assert policy.decide(replace(FACTS, trained_for=DAY - timedelta(days=27))).action == "keep"
    assert NeverPolicy().decide(FACTS).action == "keep"


def test_the_rule_of_the_reports_decides_as_it_does_elsewhere():
    policy = ReportPolicy(
        histories=(History(days=70),),
        minimum_bad_windows=2,
        recent_windows=3,
        cooldown=14,
        maximum_age=180,
        minimum_new_rows=100,
        refused=None,
        watch=6,
    )
    bad = replace(FACTS, results=[result(weeks, alert=weeks < 3) for weeks in (3, 2, 1)])
    assert policy.decide(FACTS).action == "keep"
    assert policy.decide(bad).action == "retrain"
    assert policy.decide(replace(bad, new_rows=99)).action == "keep"


def test_a_history_has_a_name():
    assert [history.name for history in (History(), History(days=70), History(half_life=56))] == [
        "all",
        "last 70 days",
        "half-life of 56 days",
    ]
