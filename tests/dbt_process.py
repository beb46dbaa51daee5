"""dbt commands as processes that begin with dbt imported: the import takes two of the five processor seconds of a command. No tests here."""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run_dbt(*arguments: str, directory: Path, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a dbt command in `directory`, and return what it printed and its exit code."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder) / "output", Path(folder) / "error"
        request = {
            "arguments": arguments,
            "directory": str(directory),
            "environment": dict(environment),
            "output": str(output),
            "error": str(error),
        }
        server.stdin.write(f"{json.dumps(request)}\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(["dbt", *arguments], code, output.read_text(), error.read_text())


@functools.cache
def _server() -> "subprocess.Popen[str]":
    """The process that dbt's are forked from. It ends with this one, which closes its input."""
    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    atexit.register(server.stdin.close)
    return server


def _serve() -> None:
    """Fork a process for each request, a line of JSON, and answer with its exit code."""
    import dbt.adapters.duckdb
    import dbt.cli.main  # noqa: F401

    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            _execute(json.loads(line))
        _, status = os.waitpid(process, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _execute(request: dict[str, Any]) -> None:
    """Become the process of a dbt command."""
    from dbt.cli.main import cli

    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, name in ((1, "output"), (2, "error")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    sys.argv = ["dbt", *request["arguments"]]
    code = 1
    try:
        cli()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
