"""Prequential evaluation: nothing is used before it is known, whatever changes is noticed, and a second evaluation fits nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from drifting_streams import FIRST, WEEKS_BEFORE, LinearLearner, evaluation

from mlops_assets.ml.history import History
from mlops_assets.ml.policy_comparison import FIXED, ArmSettings, build_arms, run_arms
from mlops_assets.ml.prequential import ArmResult, Prequential
from mlops_assets.ml.shared_fits import Models
from mlops_assets.ml.update_policies import NeverPolicy, PeriodicPolicy, UpdateDecision, UpdateFacts

SETTINGS = ArmSettings(
    histories=(History(days=70), History(days=70, half_life=23)),
    window=70,
    period=28,
    cooldown=14,
    maximum_age=180,
    minimum_new_rows=280,
)
ARMS = build_arms(SETTINGS)
STABLE = [0.0] * 24
CHANGED = [0.0] * 8 + [1.5] * 16
GRADUAL = [0.0] * 4 + list(np.linspace(0, 3, 20))


def run(stream: Prequential, name: str) -> ArmResult:
    return stream.run(ARMS[name].policy, ARMS[name].first_histories)


def mean(arm: ArmResult) -> float:
    return float(np.mean([value for value in arm.metrics if value is not None]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["live", "all"])
def test_nothing_is_trained_where_nothing_changes(name: str, seed: int):
    arm = run(evaluation(STABLE, seed=seed), name)
    assert [event for event in arm.events if event.action in ("retrain", "roll back")] == []


@pytest.mark.parametrize("angles", [CHANGED, GRADUAL], ids=["once", "all the time"])
def test_a_relation_that_changes_is_followed_better_than_by_the_calendar(angles: Sequence[float]):
    arms = run_arms(evaluation(angles), {name: ARMS[name] for name in (*FIXED, "live", "all")}, lambda name: None)
    best = max(mean(arms[name]) for name in FIXED)
    assert mean(arms["live"]) > best
    assert mean(arms["all"]) > best


def test_a_candidate_that_gains_nothing_is_refused_and_by_age_it_replaces_an_equal_one():
    stream = evaluation(STABLE)

    @dataclass(frozen=True)
    class Asking(NeverPolicy):
        must_gain: bool
        gated = refits = True

        def decide(self, facts: UpdateFacts) -> UpdateDecision:
            return UpdateDecision("retrain", "asked for", (History(),), self.must_gain)

    refused = [[event.refused for event in stream.run(Asking(must_gain=asks), (History(),)).events] for asks in (True, False)]
    assert sum(refused[0]) >= len(refused[0]) - 1
    assert sum(refused[1]) <= 1


@pytest.mark.parametrize("delay", [0, 10, 30])
@pytest.mark.parametrize("name", ["live", "all"])
def test_a_decision_uses_no_label_before_it_is_known(name: str, delay: int):
    day = FIRST + timedelta(weeks=WEEKS_BEFORE + 14)
    stream = evaluation(CHANGED, delay=delay)
    models = stream._models
    unknown = models.stream.known > np.datetime64(day)
    other = replace(models.stream, labels=np.where(unknown, 1 - models.stream.labels, models.stream.labels))
    learner = LinearLearner(models._learner.features, other)
    changed = Prequential(
        Models(other, learner, squared=False, folder=None, identity=""),
        windows=stream.windows,
        holdout_days=14,
        half_life=23,
        metric="roc_auc",
    )
    events, again = ([event for event in run(each, name).events if event.day <= day] for each in (stream, changed))
    assert events == again
    assert events or delay == 30


def test_a_training_on_wrong_labels_is_rolled_back():
    stream = evaluation([0.0] * 16, wrong=[4, 5, 6, 7])
    forced = replace(ARMS["rollback"].policy, gated=False, maximum_age=56, effect=100)
    arm = stream.run(forced, (History(days=28),))
    # The training of week 8 holds only wrong labels: within two windows the model before it is back.
    [training, rollback] = [event for event in arm.events if event.action in ("retrain", "roll back")][:2]
    assert (training.action, rollback.action) == ("retrain", "roll back")
    assert rollback.day - training.day <= timedelta(days=14)


def test_the_live_rule_goes_back_after_a_training_on_wrong_labels():
    stream = evaluation([0.0] * 16, wrong=[4, 5, 6, 7])
    forced = replace(ARMS["live"].policy, gated=False, recalibrates=False, forecasts=False, maximum_age=56)
    events = stream.run(forced, (History(days=28),)).events
    # The second training holds them too, and a third one is not tried: a person is asked.
    assert [event.action for event in events] == ["retrain", "roll back"] * 2
    assert events[1].day - events[0].day <= timedelta(days=14)


def test_the_gate_refuses_a_model_of_wrong_labels():
    stream = evaluation([0.0] * 16, wrong=[4, 5])
    by_age = replace(ARMS["loss"].policy, histories=(History(days=28),), maximum_age=56, effect=100)
    arm = stream.run(by_age, (History(days=28),))
    # The training of week 8 is fitted on the wrong labels, and its hold-out, the two weeks after them, is right.
    assert [event.refused for event in arm.events if event.day == stream.windows[8][0]] == [True]
    assert min(value for value in arm.metrics[6:] if value is not None) > 0.8


@pytest.mark.parametrize("problem", ["regression", "multiclass_classification"])
def test_numbers_and_classes_are_followed_as_well(problem: str):
    stream = evaluation(CHANGED, problem=problem)
    never, ours = run(stream, "never"), run(stream, "all")
    assert np.mean(ours.losses) < 0.9 * np.mean(never.losses)


def test_a_model_that_is_kept_is_not_fitted_again(tmp_path: Path):
    policy = PeriodicPolicy(days=28, histories=(History(),))
    first = evaluation(STABLE, folder=tmp_path)
    arm = first.run(policy, (History(),))
    assert first._models.fitted_now == len(arm.fits) == 6
    second = evaluation(STABLE, folder=tmp_path)
    assert second.run(policy, (History(),)).metrics == arm.metrics
    assert second._models.fitted_now == 0


def test_windows_end_with_the_rows():
    stream = evaluation(STABLE)
    assert (len(stream.windows), stream.windows[0][0]) == (24, FIRST + timedelta(weeks=WEEKS_BEFORE))
    assert stream.windows[-1][1] == date(2024, 1, 1) + timedelta(weeks=WEEKS_BEFORE + 24)
    assert len(stream.run(NeverPolicy(), (History(),)).fits) == 1
