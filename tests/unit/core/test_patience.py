"""Waiting for a server that is away."""

import logging

import pytest

from mlops_assets.core.errors import AwayError
from mlops_assets.core.patience import LOST_CONNECTION, patiently


def test_an_answer_is_waited_for_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    problems = [AwayError("The lake is away.\nIts remedy"), AwayError("It still is.")]

    def ask() -> int:
        if problems:
            raise problems.pop(0)
        return 7

    with caplog.at_level(logging.WARNING):
        assert patiently(ask, seconds=60) == 7
    assert caplog.messages == ["The lake is away. Waiting for it."]


def test_what_is_wrong_and_what_stays_away_is_raised() -> None:
    asked = []

    def ask(problem: Exception) -> None:
        asked.append(problem)
        raise problem

    with pytest.raises(ValueError, match="wrong"):
        patiently(lambda: ask(ValueError("wrong")))
    assert len(asked) == 1
    with pytest.raises(AwayError, match="away"):
        patiently(lambda: ask(AwayError("away")), seconds=1)
    assert len(asked) > 2


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("IO Error: server closed the connection unexpectedly", True),
        ('connection to server on socket "x" failed: Connection refused', True),
        ("FATAL:  the database system is starting up", True),
        ("FATAL:  terminating connection due to administrator command", True),
        ("(psycopg2.OperationalError) SSL SYSCALL error: EOF detected", True),
        ("SSL connection has been closed unexpectedly", True),
        ("could not receive data from server: Connection timed out", True),
        ("SSL error: certificate verify failed", False),
        ('Catalog Error: Table with name "starting up" does not exist!', False),
        ('relation "x" does not exist', False),
    ],
)
def test_the_words_of_a_lost_connection(message: str, lost: bool) -> None:
    assert bool(LOST_CONNECTION.search(message)) is lost
