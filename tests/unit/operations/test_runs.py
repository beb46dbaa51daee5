"""Following a run to its end, over the runs that go on with it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.core.errors import StackError
from mlops_assets.operations import runs
from mlops_assets.operations.runs import follow_run, wait_for_run


def state(
    run_id: str, status: str, *, is_interrupted: bool = False, is_followed: bool = False, followed_by: str | None = None
) -> RunState:
    return RunState(
        run_id, status, ("fit",), (), {}, is_interrupted=is_interrupted, is_followed=is_followed, followed_by=followed_by
    )


class Scripted(DagsterClient):
    """A client that is told the states of runs one after another; `asked` are the runs, `asked_steps` those whose steps were asked for."""

    def __init__(self, states: Sequence[RunState], failures: Sequence[str] = ()):
        self.states, self.reasons = list(states), list(failures)
        self.asked: list[str] = []
        self.asked_steps: list[str] = []

    def run(self, run_id: str, *, with_steps: bool = True) -> RunState:
        if with_steps:
            self.asked_steps.append(run_id)
            # A state that was told without its steps is told again.
            if self.asked and self.told.finished and self.told.run_id == run_id:
                return self.told
        self.asked.append(run_id)
        self.told = self.states.pop(0)
        return self.told if with_steps else replace(self.told, steps=())

    def failures(self, run_id: str) -> list[str]:
        return self.reasons

    def run_url(self, run_id: str) -> str:
        return f"http://localhost/runs/{run_id}"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_POLL_SECONDS", "_SHORT_POLL_SECONDS"):
        monkeypatch.setattr(runs, name, 0)


def test_a_run_is_followed_until_it_ends_and_each_state_is_told() -> None:
    states = [state("a", "QUEUED"), state("a", "STARTED"), state("a", "SUCCESS")]
    told: list[str] = []
    assert follow_run(Scripted(states), "a", "training", lambda each: told.append(each.status)) == states[-1]
    assert told == ["QUEUED", "STARTED", "SUCCESS"]


def test_the_steps_of_a_run_are_asked_for_now_and_then_and_at_its_end() -> None:
    client, told = Scripted([state("a", "STARTED")] * 15 + [state("a", "SUCCESS")]), []
    follow_run(client, "a", "training", told.append)
    assert len(client.asked) == 16
    assert len(client.asked_steps) == 3
    assert {each.steps for each in told} == {("fit",)}


def test_an_interrupted_run_is_followed_by_the_one_that_goes_on_with_it() -> None:
    states = [
        state("a", "FAILURE", is_followed=True),
        state("a", "FAILURE", is_followed=True, followed_by="b"),
        state("b", "STARTED"),
        state("b", "SUCCESS"),
    ]
    client = Scripted(states)
    assert follow_run(client, "a", "training", lambda each: None).run_id == "b"
    assert client.asked == ["a", "a", "b", "b"]


def test_a_run_that_fails_between_two_questions_about_its_steps_is_followed() -> None:
    failed = state("a", "FAILURE", is_interrupted=True, is_followed=True)
    states = [state("a", "STARTED"), failed, failed, replace(failed, followed_by="b"), replace(failed, followed_by="b")]
    assert follow_run(Scripted([*states, state("b", "SUCCESS")]), "a", "training", lambda each: None).run_id == "b"


def test_an_interrupted_run_on_which_dagster_gave_up_is_followed_when_dagster_was_asked_again() -> None:
    given_up = state("a", "FAILURE", is_interrupted=True)
    states = [given_up, given_up, replace(given_up, is_followed=True, followed_by="b"), state("b", "SUCCESS")]
    assert follow_run(Scripted(states), "a", "training", lambda each: None).run_id == "b"


def test_an_interrupted_run_that_nothing_goes_on_with_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_GIVEN_UP_SECONDS", 0)
    with pytest.raises(StackError):
        follow_run(Scripted([state("a", "FAILURE", is_interrupted=True)] * 3), "a", "training", lambda each: None)


@pytest.mark.parametrize(
    ("status", "reasons", "words"), [("FAILURE", ["disk full", "twice"], "disk full\ntwice"), ("CANCELED", [], "CANCELED")]
)
def test_a_run_that_fails_is_told_with_its_causes_and_its_page(status: str, reasons: list[str], words: str) -> None:
    with pytest.raises(StackError) as error:
        follow_run(Scripted([state("a", status)], reasons), "a", "training", lambda each: None)
    assert error.value.problem == f"The run of training failed.\n{words}"
    assert error.value.remedy.endswith("http://localhost/runs/a")


def test_waiting_takes_any_end() -> None:
    assert wait_for_run(Scripted([state("a", "FAILURE")]), "a", lambda each: None).status == "FAILURE"


def test_a_delivery_that_was_set_aside_may_be_taken_as_it_is() -> None:
    failures = ["raw/orders: delivery: 2025-02-17: 26 rows", "raw/orders: duplicates: 3 keys", "features: a fault"]
    with pytest.raises(StackError) as raised:
        follow_run(Scripted([state("a", "FAILURE")], failures), "a", "data", lambda each: None)
    assert raised.value.remedy.count("raw/orders") == 1
    assert "`ops: {raw__orders: {config: {accept: why}}}`" in raised.value.remedy
