"""The pauses of daemons that hear of runs. What they do then is seen in tests/integration/test_run_notices.py and in every run of a stack."""

import threading

import pytest

from mlops_assets.runs.prompt_daemons import Pauses

LONG = 3600.0
PATIENCE = 30.0


@pytest.mark.parametrize("ending", ["heard before", "heard", "shutdown"])
def test_a_pause_ends_with_what_is_heard_and_with_the_daemon(ending: str) -> None:
    shutdown = threading.Event()
    pauses = Pauses(0.0).until(shutdown)
    if ending == "heard before":
        pauses.set()
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(pauses.wait(LONG)), daemon=True)
    waiting.start()
    {"heard before": lambda: None, "heard": pauses.set, "shutdown": shutdown.set}[ending]()
    waiting.join(PATIENCE)
    assert results == [ending == "shutdown"]


def test_what_was_heard_ends_one_pause() -> None:
    pauses = Pauses(0.0).until(threading.Event())
    pauses.set()
    pauses.wait(LONG)
    waiting = threading.Thread(target=pauses.wait, args=(LONG,), daemon=True)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()


def test_a_daemon_that_ends_makes_no_more_pauses() -> None:
    shutdown = threading.Event()
    pauses = Pauses(0.0).until(shutdown)
    shutdown.set()
    assert pauses.wait(LONG)
    assert pauses.wait(LONG)
