"""What earlier decisions say: who may be rolled back, what was tried in vain, and that a person's act begins anew."""

from datetime import date, timedelta

from mlops_assets.ml.decision_history import DecisionHistory, EarlierDecision
from mlops_assets.ml.retraining import Outcome

FIRST = date(2020, 3, 2)


def week(number: int) -> date:
    """The Monday of a week; the decision about a week is made for the next Monday."""
    return FIRST + timedelta(weeks=number)


TRAINED_FOR = {1: FIRST, 2: week(2), 3: week(4), 9: week(2)}
"""Version -> training date; version 9 was trained by hand."""


def history(
    *decided: tuple[int, Outcome],
    version: int,
    evaluated: tuple[int, ...] = (),
    bent: tuple[int, ...] = (),
    previous: int | None = None,
) -> DecisionHistory:
    """The decisions about the weeks from 0 on: of each the version that predicted and the outcome. A rollback is to `previous`."""
    decisions = [
        EarlierDecision(
            window=week(number),
            day=week(number + 1),
            version=predicting,
            trained_for=TRAINED_FOR[predicting],
            previous=previous if outcome == "roll back" else None,
            outcome=outcome,
        )
        for number, (predicting, outcome) in enumerate(decided)
    ]
    return DecisionHistory(
        decisions,
        version,
        TRAINED_FOR[version],
        {week(number) for number in (0, *evaluated, *bent)},
        {week(number) for number in bent},
    )


def test_a_rollback_has_no_rollback_and_is_not_repeated_against_a_person() -> None:
    decided: list[tuple[int, Outcome]] = [(1, "keep"), (1, "retrain"), (2, "keep"), (2, "roll back")]
    back = history(*decided, version=1, previous=1, evaluated=(2,))
    assert (back.may_roll_back, back.rolled_back) == (False, week(4))
    # The sensor was off: what was decided is decided again.
    assert (history(*decided, version=2, previous=1).may_roll_back, history(*decided, version=2, previous=1).rolled_back) == (
        True,
        None,
    )
    # A person brought it back.
    assert not history(*decided, (1, "keep"), version=2, previous=1).may_roll_back
    assert history(*decided, (1, "retrain"), version=3, previous=1).may_roll_back


def test_windows_from_before_another_version_are_known_to_be_so() -> None:
    assert history(version=1).replaced_in is None
    assert history((1, "keep"), (1, "retrain"), version=1).replaced_in is None
    decided: list[tuple[int, Outcome]] = [(1, "retrain"), (2, "keep"), (2, "roll back"), (1, "keep")]
    assert history(*decided, version=1, previous=1).replaced_in == week(2)


def test_trainings_that_did_not_end_in_service_are_counted() -> None:
    assert history(version=1).refused == 0
    assert history((1, "retrain"), version=1, evaluated=(1,)).refused == 1
    # Decided but overtaken: nothing was evaluated.
    assert history((1, "retrain"), (1, "keep"), version=1).refused == 0
    assert history((1, "retrain"), (1, "wait"), (1, "retrain"), version=1, evaluated=(1, 3)).refused == 2
    assert history((1, "keep"), (1, "retrain"), version=2, evaluated=(2,)).refused == 0
    rolled_back = history((1, "keep"), (1, "retrain"), (2, "keep"), (2, "roll back"), version=1, previous=1, evaluated=(2,))
    assert rolled_back.refused == 1


def test_a_person_begins_anew() -> None:
    refused: list[tuple[int, Outcome]] = [(1, "retrain"), (1, "retrain")]
    assert history(*refused, (1, "ask"), version=1, evaluated=(1, 2)).refused == 2
    by_hand = history(*refused, (1, "ask"), version=1, evaluated=(1, 2, 3))
    assert by_hand.refused == 0
    deployed = history((2, "retrain"), (2, "retrain"), (2, "ask"), (1, "keep"), version=1, evaluated=(1, 2))
    assert deployed.refused == 0
    assert history((2, "retrain"), (2, "ask"), version=1, evaluated=(1, 2)).refused == 0


def test_a_recalibration_is_no_training() -> None:
    bent = history((1, "recalibrate"), version=1, bent=(1,))
    assert (bent.refused, bent.attempted, bent.refused_recalibrations) == (0, week(0), 1)
    assert history((1, "recalibrate"), version=1).refused_recalibrations == 0
    assert history((1, "recalibrate"), version=2, bent=(1,)).refused_recalibrations == 0
    # One by hand between two refused trainings does not begin anew.
    assert history((1, "retrain"), (1, "keep"), (1, "retrain"), version=1, evaluated=(1, 3), bent=(2,)).refused == 2
