"""How much longer a project of 50 solutions takes to load than one of 3, each in fresh processes.

What a solution costs is Dagster's own construction of its 19 assets.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

from figures import compare
from many_solutions import write_project

RUNS = 5
FEW, MANY = 3, 50
LIMIT = 2.0
LOADING = "import many.definitions; many.definitions.defs().get_repository_def()"


def processor_seconds(project: Path) -> float:
    """Processor time of a process that loads the definitions of `project`: unlike the time on a clock it does not count other work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"MLOPS_PROJECT": str(project), "MLOPS_HOME": str(project / ".mlops"), "PYTHONPATH": str(project)}
    subprocess.run([sys.executable, "-c", LOADING], check=True, cwd=project, env=environment, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_loading_fifty_solutions(tmp_path: Path) -> None:
    projects = {}
    for count in (FEW, MANY):
        projects[count] = tmp_path / str(count)
        write_project(projects[count], count)
    # Alternating, so that other load on the machine falls on both; the first pair fills the file caches.
    pairs = [(processor_seconds(projects[FEW]), processor_seconds(projects[MANY])) for _ in range(RUNS + 1)][1:]
    few, many = (min(column) for column in zip(*pairs, strict=True))
    assert compare(
        f"loading {MANY} solutions, processor time", ours=many, beside=f"{FEW} solutions", theirs=few, unit="s", at_most=LIMIT
    )
