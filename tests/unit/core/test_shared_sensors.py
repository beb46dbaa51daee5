"""The common part of sensors over all solutions: what one solution's error does to the others, and what a tick says."""

import dagster as dg
import pytest

from mlops_assets.core.shared_sensors import look_at_each, tick_result


def look(name: str, outcome: object) -> dg.RunRequest | str:
    if isinstance(outcome, Exception):
        raise outcome
    assert isinstance(outcome, dg.RunRequest | str)
    return outcome


def test_an_error_at_one_solution_waits_until_the_others_have_their_runs(caplog: pytest.LogCaptureFixture) -> None:
    request = dg.RunRequest(job_name="b_deployment")
    assert look_at_each({"a": ValueError("broken"), "b": request}, look)[0] == [request]
    assert "could not look at a" in caplog.text
    assert "ValueError: broken" in caplog.text
    with pytest.raises(ValueError, match="broken") as raised:
        look_at_each({"a": ValueError("broken"), "b": "nothing changed"}, look)
    assert raised.value.__notes__ == ["While the sensor looked at a."]


def test_solutions_with_the_same_reason_share_a_sentence() -> None:
    many = dict.fromkeys("abcdefg", "nothing changed") | {"x": "no champion yet"}
    assert look_at_each(many, look) == ([], "a, b, c, d, e and 2 others: nothing changed; x: no champion yet")


def test_a_tick_without_runs_says_why_and_keeps_its_cursor() -> None:
    result = tick_result([], "x: no champion yet", {"x": 1})
    assert result.skip_reason is not None
    assert (result.skip_reason.skip_message, result.cursor) == ("x: no champion yet", '{"x": 1}')
