"""A return to a former champion: at once, before any run, and recorded once, whoever dies in between and whatever comes in between."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from served_versions import NAME, ServedVersions, served_versions

from mlops_assets.clients.registered_model import GATES_FAILED, GATES_TAG
from mlops_assets.deployment.switch_journal import SWITCH, SWITCH_TAG, SWITCHED_AT, Switch
from mlops_assets.schema.solution import Segments
from mlops_assets.stages.inputs import SolutionInputs

SEGMENT = "EWR"
CHANGES = {"os.rename", "os.remove", "os.symlink", "fcntl.flock", "socket.connect"}
"""What a switch does to the world, as Python's audit hooks name it: between any two of them it may be killed."""


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedVersions]:
    """The example, of which version 2 predicts after version 1."""
    monkeypatch.chdir(tmp_path)
    with served_versions(tmp_path) as example:
        for _ in range(2):
            deployed = example.deploy(example.add(), actor="dagster", reason="the candidate passed its gates")
            assert deployed.success
        assert example.live == (2, 2)
        yield example


def history(example: ServedVersions) -> list[tuple[int, int | None, str]]:
    """Version, version before and reason of each deployment, newest first."""
    return [(each["model_version"], each["version_before"], each["reason"]) for each in example.deployments()]


def record(example: ServedVersions, switch: Any) -> dg.ExecuteInProcessResult:
    """The run that the command launches."""
    return example.deploy(switch.version, {SWITCH_TAG: switch.id}, actor=switch.actor, reason=switch.reason)


def test_a_rollback_precedes_its_run_which_records_it(example: ServedVersions) -> None:
    first, second = history(example)[1], history(example)[0]
    with example.rolled_back(1) as switch:
        assert switch is not None
        assert example.live == (1, 1)
        assert history(example) == [second, first]
        assert example.tick() == []  # somebody is at work on it
        assert record(example, switch).success
    assert history(example) == [(1, 2, "complaints"), second, first]
    newest = example.deployments()[0]
    assert (newest["actor"], newest["changed"], newest[SWITCH]) == ("anna", True, switch.id)
    assert set(newest) == set(example.deployments()[1])
    assert example.tick() == []
    assert example.journal.pending(None) == []
    previous = example.registry.by_alias(NAME, "previous")
    assert previous is not None
    assert previous.version == 2
    with example.rolled_back(2, "it was something else") as again:
        assert record(example, again).success
    assert example.live == (2, 2)
    assert history(example)[0] == (2, 1, "it was something else")
    assert newest[SWITCHED_AT] < example.deployments()[0][SWITCHED_AT]


def test_runs_that_come_late_or_in_another_order_record_what_happened(example: ServedVersions) -> None:
    """Both switches wait in the queue, and a training deploys before either is recorded."""
    with example.rolled_back(1, "first") as first:
        pass
    with example.rolled_back(2, "second") as second:
        pass
    assert example.live == (2, 2)
    assert example.deploy(example.add(), reason="trained").success
    assert example.live == (3, 3)
    expected = [(3, 2, "trained"), (2, 1, "second"), (1, 2, "first")]
    assert history(example)[:3] == expected
    # Their runs have nothing left to do, and move nothing.
    for switch in (second, first):
        late = record(example, switch)
        assert late.success
        assert not late.get_asset_materialization_events()
    assert (example.live, history(example)[:3], example.tick()) == ((3, 3), expected, [])


def test_a_switch_whose_run_does_not_come_is_recorded_by_the_sensor(example: ServedVersions) -> None:
    with example.rolled_back(1, "one") as one, example.rolled_back(2, "two"):
        assert one is not None
        # The command lives, and is to launch its run.
        assert example.tick() == []
    newest = example.journal.pending(None)[-1].switch
    waiting = example.instance.create_run_for_job(dg.job(name="waiting")(lambda: None), tags={SWITCH_TAG: newest.id})
    assert example.tick() == []
    example.instance.report_run_canceled(waiting)
    [request] = example.tick()
    # A tick that is repeated asks for the same run.
    assert [each.run_key for each in example.tick()] == [request.run_key]
    example.follow(request)
    assert history(example)[:2] == [(2, 1, "two"), (1, 2, "one")]
    assert [each["actor"] for each in example.deployments()[:2]] == ["anna", "anna"]
    assert example.tick() == []
    assert example.live == (2, 2)


@pytest.mark.long
def test_a_run_that_dies_between_switch_and_record_is_waited_for_and_then_made_up_for(example: ServedVersions) -> None:
    run = example.instance.create_run_for_job(dg.job(name="deploying")(lambda: None))
    begun = Switch(
        id="of a run",
        run_id=run.run_id,
        solution=NAME,
        segment=None,
        version=1,
        before=2,
        actor="dagster",
        approved_by="bert",
        reason="trained",
        bundle=example.deployments()[1]["bundle"],
        bundle_sha256=example.deployments()[1]["bundle_sha256"],
    )
    with example.journal.deciding(), example.journal.begun(begun):
        pass
    # A command leaves a switch that was begun to the run, which finishes it first.
    with example.rolled_back(1) as switch:
        assert switch is None
    assert example.tick() == []
    example.instance.report_run_failed(run)
    [request] = example.tick()
    example.follow(request)
    assert example.live == (1, 1)
    assert history(example)[0] == (1, 2, "trained")
    newest = example.deployments()[0]
    assert (newest["actor"], newest["approved_by"]) == ("dagster", "bert")
    assert example.tick() == []


@pytest.mark.long
def test_a_command_that_is_killed_at_any_moment_leaves_one_record_or_none(example: ServedVersions) -> None:
    """Killed before each change that it makes: before the first one nothing happened, afterwards its rollback is recorded once."""
    seen: Counter[str] = Counter()
    for moment in range(1, 100):
        before, champion = history(example), example.live[0]
        assert champion is not None
        to, reason = 3 - champion, f"killed at {moment}"
        is_killed = killed(example, to, reason, moment)
        seen[
            "half done" if len(set(example.live)) > 1 else "as before" if example.live == (champion, champion) else "switched"
        ] += 1
        for request in example.tick():
            example.follow(request)
        assert example.tick() == []
        done = [(to, champion, reason)] if example.live == (to, to) else []
        assert example.live == (history(example)[0][0],) * 2
        assert history(example) == [*done, *before]
        assert example.journal.pending(None) == []
        if not is_killed:
            break
    assert not is_killed
    assert min(seen["as before"], seen["half done"], seen["switched"]) > 0


def killed(example: ServedVersions, version: int, reason: str, moment: int) -> bool:
    """Whether the command was killed at the moment, or ended before."""
    child = os.fork()
    if child == 0:
        left = moment

        def count(event: str, _: tuple[Any, ...]) -> None:
            nonlocal left
            if event in CHANGES:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(count)
            with example.rolled_back(version, reason):
                status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_what_raises_a_doubt_is_left_to_the_run(example: ServedVersions) -> None:
    never = example.add()
    with example.rolled_back(never) as switch:
        assert switch is None  # it never predicted
    with example.rolled_back(2) as switch:
        assert switch is None  # it predicts
    model = example.settings.serving_directory / NAME / "1" / "model.onnx"
    good = model.read_bytes()
    model.write_bytes(good + b"x")
    with example.rolled_back(1) as switch:
        assert switch is None
    assert "was changed after promotion" in str(example.deploy(1).get_step_failure_events()[0].step_failure_data)
    model.write_bytes(good)
    example.registry.set_alias(NAME, "champion", 1)
    with example.rolled_back(1) as switch:
        assert switch is None  # moved by hand
    example.registry.set_alias(NAME, "champion", 2)
    example.registry.tag(NAME, 1, {GATES_TAG: GATES_FAILED})
    with example.rolled_back(1) as switch:
        assert switch is None
    assert example.live == (2, 2)
    assert example.journal.pending(None) == []


def by_segment(inputs: SolutionInputs) -> SolutionInputs:
    """The same solution with a model of its own for a segment."""
    solution = inputs.solution.model_copy(update={"segments": Segments(column="origin", values=[SEGMENT])})
    return replace(inputs, solution=solution, by_segment=True, segment=SEGMENT)


def test_a_segment_comes_back_to_its_former_model_and_to_that_of_the_solution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with served_versions(tmp_path, by_segment) as example:
        solution = replace(example, inputs=replace(example.inputs, by_segment=False, segment=None))
        assert solution.deploy(solution.add()).success
        for _ in range(2):
            assert example.deploy(example.add(SEGMENT)).success
        assert (solution.live, example.live) == ((1, 1), (3, 3))
        with example.rolled_back(2) as switch:
            assert switch is not None
            assert (solution.live, example.live) == ((1, 1), (2, 2))
            assert record(example, switch).success
        # It has no champion of its own then.
        with example.rolled_back(1, "the solution's") as switch:
            assert example.live == (None, None)
        # Whoever made it died: the sensor has it recorded.
        [request] = example.tick()
        example.follow(request)
        assert history(example)[:2] == [(1, 2, "the solution's"), (2, 3, "complaints")]
        assert example.deployments()[0]["left_to_solution"] is True
        assert (solution.live, example.tick()) == ((1, 1), [])
