"""A search on the platform's Postgres: killed in the middle, it goes on where it was and finds what it would have found."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.clients.search_storage import search_storage
from mlops_assets.core.settings import SEARCH_DATABASE, Settings

pytestmark = pytest.mark.long

PROGRAM = """
import json, sys, time
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.search import Candidate, Dimension, SearchPlan, search
from mlops_assets.clients.search_storage import search_storage
from mlops_assets.core.settings import Settings

home, url, study, pause = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
plan = SearchPlan(
    default=PipelineStep("a", {"x": 0.9}),
    candidates=[Candidate(PipelineStep("a", {}), {"x": Dimension(0.0, 1.0, False, None), "k": Dimension(1, 20, False, None)})],
    trials=14, seconds=None, pruning=True, jobs=1, seed=3, greater_is_better=True,
)

def scores(step):
    for fold in range(3):
        time.sleep(pause)
        print("fold", flush=True)
        yield -((step.parameters["x"] - 0.2) ** 2) - step.parameters.get("k", 10) / 100 + fold / 50

with search_storage(Settings.from_environment({"MLOPS_HOME": home, "MLOPS_POSTGRES_URL": url}), study) as storage:
    result = search(plan, scores, storage=storage, name=study, report=lambda trial, best: None)
print(json.dumps([[dict(trial.step.parameters), trial.state, trial.value] for trial in result.trials]))
"""


@pytest.fixture(scope="module")
def url(create_database: Callable[[str], str], postgres_directory: Path) -> str:
    create_database(SEARCH_DATABASE)
    return f"postgresql://postgres@/postgres?host={postgres_directory}"


def start(url: str, home: Path, study: str, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(home), url, study, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> tuple[int, list[list[object]]]:
    """How many folds the process scored, and its trials."""
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    *folds, result = text.splitlines()
    return folds.count("fold"), json.loads(result)


def test_a_killed_search_goes_on_where_it_was(url: str, tmp_path: Path) -> None:
    folds, expected = answer(start(url, tmp_path, "whole", 0.0))
    dying = start(url, tmp_path, "killed", 0.02)
    assert dying.stdout is not None
    # In the middle of a trial, some trials in.
    for _ in range(17):
        assert dying.stdout.readline() == "fold\n"
    dying.send_signal(signal.SIGKILL)
    dying.wait(timeout=30)
    rest, resumed = answer(start(url, tmp_path, "killed", 0.0))
    assert resumed == expected
    # Finished trials were not repeated; the one that was cut off was.
    assert rest < folds - 10


def test_two_processes_do_not_work_on_one_study_at_once(url: str, tmp_path: Path) -> None:
    settings = Settings.from_environment({"MLOPS_HOME": str(tmp_path), "MLOPS_POSTGRES_URL": url})
    with search_storage(settings, "shared"):
        waiting = start(url, tmp_path, "shared", 0.0)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=3)
    assert len(answer(waiting)[1]) == 14
