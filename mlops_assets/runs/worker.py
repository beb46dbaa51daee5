"""The process that executes one run: `python -m mlops_assets.runs.worker <locked file> <folder> <arguments of Dagster>`.

Its children end with it: a guard, forked before there is a thread, kills the process group as soon as the worker is gone.
"""

import atexit
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from mlops_assets.core.named_lines import name_lines
from mlops_assets.runs import dbt_processes
from mlops_assets.runs.workers import Workers

_GUARD_SECONDS = 0.5


def main(lock: int, directory: Path, serialized: str) -> NoReturn:
    """Execute the run that the arguments name, and end. Its files are removed when that ended in an orderly way, whatever the outcome."""
    code = 1
    try:
        _execute(lock, directory, serialized)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Without the end of the interpreter, which waits for threads of libraries: one of DuckDB's that waited for the interpreter kept a
        # process, and its locks in the lake, for good, while the run had ended. All that a run writes is written.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _execute(lock: int, directory: Path, serialized: str) -> None:
    os.set_inheritable(lock, False)
    # An ignored signal is inherited, and Dagster ignores SIGTERM where SIGINT is: canceling would not reach this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if set(dbt_processes.LIBRARIES) <= sys.modules.keys():
        dbt_processes.fork_server(lock)
    _guard(lock)
    from dagster._cli.api import execute_run_command
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._serdes import deserialize_value

    execute_run_command.main([serialized], standalone_mode=False)
    Workers(directory).remove(deserialize_value(serialized, ExecuteRunArgs).run_id)


def _guard(lock: int) -> None:
    """Fork the process that outlives this one for as long as it takes to kill what this one started.

    It is told of the end by the pipe that closes, at once, and by the change of its parent, should a fork hold the pipe open. A signal
    of the kernel to each child (PR_SET_PDEATHSIG) exists on Linux only, and every child would have to ask for it.
    """
    worker = os.getpid()
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        return
    os.close(writing)
    os.close(lock)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == worker and not select.select([reading], [], [], _GUARD_SECONDS)[0]:
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    name_lines()
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
