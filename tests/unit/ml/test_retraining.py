"""The retraining rule: what it must never do, whatever the reports say, and what it says in words."""

from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.loss_comparison import WindowLosses
from mlops_assets.ml.retraining import RetrainingDecision, RetrainingPolicy, RetrainingState, WindowResult, decide
from mlops_assets.ml.service_comparison import CHAMPION
from mlops_assets.ml.training_forecast import OLDER, YOUNGER, TrainingCosts

DAY = date(2013, 9, 2)

dates = st.dates(date(2013, 1, 1), date(2013, 12, 31))
values = st.none() | st.floats(0, 1)
windows = st.builds(
    WindowResult,
    start=dates,
    drifted_share=values,
    metric=st.just("roc_auc"),
    estimated=values,
    realised=values,
    limit=values,
    alert=st.booleans(),
    complete=st.booleans(),
)
policies = st.integers(1, 6).flatmap(
    lambda of: st.builds(
        RetrainingPolicy,
        minimum_bad_windows=st.integers(1, of),
        recent_windows=st.just(of),
        maximum_drifted_share=st.floats(0, 1),
        trained_before=st.none() | dates,
        attempted_after=dates,
        minimum_new_rows=st.integers(0, 5000),
        refused=st.none(),
        watch=st.just(6),
        rolls_back=st.booleans(),
        recalibrates=st.booleans(),
        forecasts=st.booleans(),
    )
)
states = st.builds(
    RetrainingState,
    day=dates,
    windows=st.lists(windows, max_size=8),
    trained_for=dates,
    attempted=st.none() | dates,
    new_rows=st.integers(0, 10_000),
    changed=st.booleans(),
    running=st.none() | st.just("run-1"),
)


def window(start: date, *, alert: bool = False, complete: bool = True, drifted_share: float | None = None) -> WindowResult:
    return WindowResult(
        start=start,
        drifted_share=drifted_share,
        metric="roc_auc",
        estimated=0.71,
        realised=0.69 if complete else None,
        limit=0.74,
        alert=alert,
        complete=complete,
    )


POLICY = RetrainingPolicy(
    minimum_bad_windows=2,
    recent_windows=3,
    maximum_drifted_share=0.3,
    trained_before=DAY - timedelta(days=60),
    attempted_after=DAY - timedelta(days=7),
    minimum_new_rows=1000,
    refused=2,
    watch=6,
    rolls_back=True,
    recalibrates=True,
    forecasts=True,
)
STATE = RetrainingState(
    day=DAY,
    windows=[window(DAY - timedelta(weeks=weeks)) for weeks in (4, 3, 2, 1)],
    trained_for=date(2013, 8, 1),
    attempted=date(2013, 8, 1),
    new_rows=20_000,
    changed=True,
    running=None,
)


def bad(*weeks: int) -> list[WindowResult]:
    """The last four windows, those that began so many weeks ago with an alert."""
    return [window(DAY - timedelta(weeks=each), alert=each in weeks) for each in (4, 3, 2, 1)]


@given(states, policies)
def test_there_is_a_training_exactly_when_there_is_a_reason_and_no_obstacle(
    state: RetrainingState, policy: RetrainingPolicy
) -> None:
    decision = decide(state, policy)
    problems = [each.problem for each in state.windows[-policy.recent_windows :]]
    too_old = policy.trained_before is not None and state.trained_for <= policy.trained_before
    assert bool(decision.reasons) == (sum(problem is not None for problem in problems) >= policy.minimum_bad_windows or too_old)
    assert (decision.outcome == "keep") == (not decision.reasons)
    assert (decision.outcome == "retrain") == (bool(decision.reasons) and not decision.obstacles)


@given(states, policies)
def test_nothing_is_trained_twice_too_soon_or_for_nothing(state: RetrainingState, policy: RetrainingPolicy) -> None:
    if decide(state, policy).outcome == "retrain":
        assert state.running is None
        assert state.changed
        assert state.new_rows >= policy.minimum_new_rows
        assert state.attempted is None or state.attempted <= policy.attempted_after


@given(states, policies)
def test_the_decision_says_why(state: RetrainingState, policy: RetrainingPolicy) -> None:
    decision = decide(state, policy)
    assert all(part in decision.text for part in (*decision.reasons, *decision.obstacles))
    assert decision.text


@given(states, policies, st.integers(0, 7))
def test_a_window_that_turns_out_good_is_no_reason_to_train(
    state: RetrainingState, policy: RetrainingPolicy, position: int
) -> None:
    if decide(state, policy).outcome != "retrain" and position < len(state.windows):
        mended = list(state.windows)
        mended[position] = replace(mended[position], alert=False, complete=True)
        assert decide(replace(state, windows=mended), policy).outcome != "retrain"


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 30))
def test_trainings_of_a_history_keep_the_cooldown_apart(alerts: list[bool], of: int, cooldown: int) -> None:
    first = date(2013, 1, 7)
    trained_for, attempted = first, None
    seen: list[WindowResult] = []
    trainings: list[date] = []
    for number, alert in enumerate(alerts):
        start = first + timedelta(weeks=number)
        day = start + timedelta(weeks=1)
        seen.append(window(start, alert=alert))
        policy = replace(
            POLICY, minimum_bad_windows=1, recent_windows=of, trained_before=None, attempted_after=day - timedelta(days=cooldown)
        )
        state = replace(STATE, day=day, windows=seen, trained_for=trained_for, attempted=attempted)
        if decide(state, policy).outcome == "retrain":
            trainings.append(day)
            trained_for = attempted = day
            # Windows of the former version say nothing of the new one.
            seen = []
    assert all(later - earlier >= timedelta(days=cooldown) for earlier, later in pairwise(trainings))


def test_one_bad_window_is_not_enough_and_two_are() -> None:
    assert decide(replace(STATE, windows=bad(1)), POLICY).outcome == "keep"
    decision = decide(replace(STATE, windows=bad(2, 1)), POLICY)
    assert decision == RetrainingDecision(
        outcome="retrain",
        reasons=(
            "2 of the last 3 windows are bad (2013-08-19: realised roc_auc 0.690, limit 0.740; "
            "2013-08-26: realised roc_auc 0.690, limit 0.740)",
        ),
        obstacles=(),
        bad_windows=2,
    )


def test_windows_before_the_last_ones_are_forgotten() -> None:
    assert decide(replace(STATE, windows=bad(4, 1)), POLICY).outcome == "keep"


def test_drift_of_features_is_told_and_is_no_reason() -> None:
    drifted = [window(each.start, complete=False, drifted_share=0.5) for each in STATE.windows]
    decision = decide(replace(STATE, windows=drifted), POLICY)
    assert (decision.outcome, decision.bad_windows) == ("keep", 0)
    assert "2013-08-26: 50% of the features drifted, limit 30%: by itself no reason" in decision.text
    matured = [replace(each, complete=True) for each in drifted]
    assert "drifted" not in decide(replace(STATE, windows=matured), POLICY).text


def ages(a_day: float, *, count: int = 6, seed: int = 0) -> list[WindowLosses]:
    """Weeks of 100 rows a day in which a day of age costs so much of a loss of 0.5, with chance."""
    random = np.random.default_rng(seed)
    return [
        WindowLosses(
            sums={YOUNGER: random.normal(1, 0.02, 7), OLDER: random.normal(1, 0.02, 7) + 100 * a_day}, rows=np.full(7, 100)
        )
        for _ in range(count)
    ]


def champion_losses() -> list[WindowLosses]:
    return [WindowLosses(sums={CHAMPION: np.full(7, 50.0)}, rows=np.full(7, 100)) for _ in range(6)]


def test_a_training_that_pays_is_made_before_any_window_is_bad() -> None:
    state = replace(STATE, ages=ages(0.003), losses=champion_losses())
    decision = decide(state, POLICY)
    assert decision.outcome == "retrain"
    assert not decision.must_gain
    assert "younger models lose less, so that a training pays after 15 days, and the model is 32 days old" in decision.text
    assert decide(replace(state, trained_for=DAY - timedelta(days=14)), POLICY).outcome == "keep"
    assert decide(state, replace(POLICY, forecasts=False)).outcome == "keep"


def test_stated_costs_decide_when_a_training_pays() -> None:
    state = replace(STATE, ages=ages(0.003), losses=champion_losses(), predictions=700)
    # 700 predictions a week: a day of age costs 0.003 of the loss each, so trainings cost least every sqrt(2 C / 0.3 v) days.
    for training, loss, due in ((100, 10, 8), (100, 1, 26), (1000, 1, 82)):
        decision = decide(state, replace(POLICY, costs=TrainingCosts(training, loss)))
        assert decision.forecast is not None
        assert decision.forecast.due == pytest.approx(due, rel=0.1)
        assert decision.outcome == ("retrain" if due < 32 else "keep")


def test_a_training_that_nothing_shows_to_help_must_gain() -> None:
    state = replace(STATE, windows=bad(2, 1), ages=ages(0))
    decision = decide(state, POLICY)
    assert (decision.outcome, decision.must_gain) == ("retrain", True)
    # The floor is age: what is only not worse replaces an old model. Without probes nothing is known against a training.
    for other in (replace(state, trained_for=date(2013, 7, 1)), replace(state, ages=ages(0.003)), replace(state, ages=())):
        decision = decide(other, POLICY)
        assert (decision.outcome, decision.must_gain) == ("retrain", False)


def test_an_old_model_is_a_reason_by_itself() -> None:
    decision = decide(replace(STATE, trained_for=date(2013, 7, 1)), POLICY)
    assert decision.outcome == "retrain"
    assert decision.text == "the model was trained for 2013-07-01, 63 days ago"


def test_what_is_against_it_is_said() -> None:
    state = replace(STATE, windows=bad(2, 1), running="run-1", attempted=DAY - timedelta(days=6), new_rows=3)
    decision = decide(state, POLICY)
    assert decision.outcome == "wait"
    assert (
        "Not now: a training is running already (run-1); the last training was for 2013-08-27, within the cooldown"
        in decision.text
    )
    assert "3 labels became known since the last training, 1000 are asked for" in decision.text
    unchanged = decide(replace(STATE, windows=bad(2, 1), changed=False), POLICY)
    assert unchanged.obstacles == ("the labelled rows are those of the last training",)


def losses(**means: float) -> list[WindowLosses]:
    """Four weeks of 100 rows a day with these mean losses, which share what a day brings."""
    random = np.random.default_rng(0)
    weeks = []
    for _ in range(4):
        shared = random.normal(0, 0.02, 7)
        sums = {name: 100 * (mean + shared + random.normal(0, 0.005, 7)) for name, mean in means.items()}
        weeks.append(WindowLosses(sums=sums, rows=np.full(7, 100)))
    return weeks


def test_what_undoes_a_mistake_comes_first() -> None:
    worse = replace(STATE, windows=bad(2, 1), losses=losses(champion=0.5, previous=0.4, recalibrated=0.3), served_windows=4)
    decision = decide(worse, POLICY)
    assert (decision.outcome, decision.bad_windows) == ("roll back", 2)
    assert decision.text.startswith("the model before loses less: this one loses +0.")
    assert decision.rollback is not None
    assert decision.rollback.windows >= 2
    assert decide(replace(worse, served_windows=7), POLICY).outcome == "retrain"
    assert decide(worse, replace(POLICY, rolls_back=False)).outcome == "retrain"


def test_predictions_are_bent_where_nothing_is_trained() -> None:
    miscalibrated = replace(STATE, losses=losses(champion=0.5, recalibrated=0.4))
    assert decide(miscalibrated, POLICY).outcome == "recalibrate"
    too_soon = decide(replace(miscalibrated, windows=bad(2, 1), attempted=DAY - timedelta(days=3)), POLICY)
    assert too_soon.outcome == "recalibrate"
    assert "2 of the last 3 windows are bad" in too_soon.text
    assert "within the cooldown" in too_soon.text
    assert decide(replace(miscalibrated, windows=bad(2, 1), running="run-1"), POLICY).outcome == "wait"
    assert decide(replace(miscalibrated, refused_recalibrations=2), POLICY).outcome == "keep"
    assert decide(replace(STATE, losses=losses(champion=0.5, recalibrated=0.5)), POLICY).outcome == "keep"


def test_after_two_trainings_in_vain_a_person_is_asked() -> None:
    refused = replace(STATE, windows=bad(2, 1), refused=2, attempted=date(2013, 8, 20))
    decision = decide(refused, POLICY)
    assert decision.outcome == "ask"
    assert "the last 2 trainings, the newest for 2013-08-20, were refused or rolled back: a person has to decide" in decision.text
    assert decide(replace(refused, refused=1), POLICY).outcome == "retrain"
    assert decide(refused, replace(POLICY, refused=None)).outcome == "retrain"
    # Nobody came: the wait doubles with each training in vain, and then the world may have changed.
    again = date(2013, 8, 20) + (DAY - POLICY.attempted_after) * 4
    assert f"without one the next is tried from {again} on" in decision.text
    later = replace(refused, day=again, attempted=date(2013, 8, 20))
    waited = replace(POLICY, attempted_after=again - (DAY - POLICY.attempted_after), trained_before=None)
    assert decide(later, waited).outcome == "retrain"
    assert decide(replace(later, refused=3), waited).outcome == "ask"
    # A training that is too old itself, by `max_age`, says no more that another one is in vain.
    assert decide(replace(refused, attempted=DAY - timedelta(days=60)), POLICY).outcome == "retrain"
    assert decide(replace(refused, windows=bad()), POLICY).outcome == "keep"


def test_a_rollback_begins_the_cooldown() -> None:
    decision = decide(replace(STATE, windows=bad(2, 1), rolled_back=DAY - timedelta(days=5)), POLICY)
    assert decision.outcome == "wait"
    assert decision.obstacles == ("the last rollback was on 2013-08-28, within the cooldown",)
