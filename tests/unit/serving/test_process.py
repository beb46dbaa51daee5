"""A server process without HTTP, asked to stop by real signals."""

import signal
import subprocess
import sys

import pytest

SERVER = """
import asyncio, sys
from mlops_assets.clients.event_stream import StoppedError
from mlops_assets.serving.process import run

async def serve(stopping):
    print("ready", flush=True)
    await stopping.wait()
    await asyncio.sleep(0.05)
    print("finished", flush=True)
    if "stopped" in sys.argv:
        raise StoppedError
    if "broken" in sys.argv:
        raise RuntimeError("broken")

run(serve)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_begun_is_finished(number: signal.Signals) -> None:
    assert ended(number) == (0, "finished\n", "")


def test_an_operation_that_was_stopped_is_a_good_end_and_an_error_is_not() -> None:
    assert ended(signal.SIGTERM, "stopped")[0] == 0
    code, _, errors = ended(signal.SIGTERM, "broken")
    assert code == 1
    assert "RuntimeError: broken" in errors


def ended(number: signal.Signals, *arguments: str) -> tuple[int, str, str]:
    """How the process ends after the signal: its code, what it still printed, and its errors."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors
