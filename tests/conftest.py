"""A real stack for the test session of each worker, started when its first test asks for it, with the demo run on it once."""

import json
import signal
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from running_stack import CHROMIUM, Demo, Platform, temporary_platform

_BROWSER_FIXTURE = "browser"
_LEFT_OUT = pytest.StashKey[int]()

# What else runs on the machine fails no test.
settings.register_profile(
    "mlops_assets",
    parent=settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mlops_assets")


def pytest_configure() -> None:
    """Let SIGTERM end what the tests start, also where a script runs them in the background.

    Its shell ignores SIGINT for them. Dagster gives SIGTERM the handler of SIGINT after each run in the process, and children inherit
    what is ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without Chromium the browser tests are deselected, which pytest's last line counts."""
    if CHROMIUM is None:
        left_out = [item for item in items if _BROWSER_FIXTURE in getattr(item, "fixturenames", ())]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        config.stash[_LEFT_OUT] = len(left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why, where nobody can miss it."""
    if left_out := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.section("browser tests", yellow=True)
        terminalreporter.line(f"{left_out} browser tests did not run: no command `chromium`. On Debian: apt-get install chromium")


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """A stack with a state folder and ports of its own."""
    with temporary_platform("platform.") as platform:
        yield platform


@pytest.fixture(scope="session")
def demo(platform: Platform) -> Demo:
    """The main job on two months of data."""
    began = time.monotonic()
    answer = platform.mlops("demo", "--months", "2", "--json")
    assert answer.returncode == 0, answer.stderr
    return Demo(summary=json.loads(answer.stdout), seconds=time.monotonic() - began)
