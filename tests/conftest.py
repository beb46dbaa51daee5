"""A real stack, started when its first test asks for it, with the demo run on it once.

Tests on it run one after another: those that want the flights of the demo in one worker of pytest-xdist, those of the census, which do
without the demo, in another one, each on a stack of its own. Those that kill its processes are the last on that of the census. The files
of the other tests are shared by the workers.
"""

import gc
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import dagster as dg
import pytest
from examples import examples
from hypothesis import HealthCheck, settings
from power_failure import CAN_CUT_POWER
from running_stack import CHROMIUM, Demo, Platform, platform_with_canaries, temporary_platform
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from mlops_assets.core.check_rules import CheckRule
from mlops_assets.core.project import project_of_process
from mlops_assets.local import control

_STACK_FIXTURE, _BROWSER_FIXTURE, _POWER_FIXTURE = "platform", "browser", "disk_without_power"
_WITHOUT = {
    _BROWSER_FIXTURE: "no command `chromium`. On Debian: apt-get install chromium",
    _POWER_FIXTURE: "only root on Linux mounts the disk image whose power is cut.",
}
"""What tests want that a machine may lack, by the fixture that gives it: why they did not run."""
_KILLS_ITS_STACK = ("tests/integration/test_interrupted_runs.py", "tests/integration/test_stack.py")
"""The last files on a stack, in this order: the second one stops it for good."""

_ON_STACK_OF_CENSUS = (
    "tests/solutions/test_maintenance.py",
    "tests/solutions/test_retraining_loop.py",
    "tests/solutions/test_employment.py",
    "tests/integration/test_another_user.py",
    *_KILLS_ITS_STACK,
)
_ON_STACK_OF_FLIGHTS = ("tests/solutions/",)
_ON_STACK = (*_ON_STACK_OF_CENSUS, *_ON_STACK_OF_FLIGHTS)
"""The files whose tests use a worker's stack. pytest-xdist knows no more of a test than its name when it shares them out."""

_NICENESS_WITHOUT_STACK = 10
"""A process that is nicer by 5 gets a third of the time of one beside it. Long runs of a stack have 5."""

_BENCHMARKS = "tests/benchmarks/"
_WITHOUT_LONG = "not long"
_LEFT_OUT = pytest.StashKey[Counter[str]]()
_RUNNING = pytest.StashKey[Platform]()

# What else runs on the machine fails no test.
settings.register_profile(
    "mlops_assets",
    parent=settings.get_profile(settings.get_current_profile_name()),
    max_examples=examples(50),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mlops_assets")


def pytest_configure(config: pytest.Config) -> None:
    """Find the project before a test works in another folder, and let SIGTERM end what the tests start, also in the background of a script.

    Its shell ignores SIGINT for them. Dagster gives SIGTERM the handler of SIGINT after each run in the process, and children inherit
    what is ignored.
    """
    project_of_process()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as in the processes of a stack
    if not all(argument.startswith(_BENCHMARKS.rstrip("/")) for argument in config.args):
        # A worker of the tests has one processor. Threads of OpenMP that wait for one another spin, and where others want the processors
        # too, a fit takes sixteen times as long. Read when scikit-learn is imported, and by the processes that tests start.
        os.environ["OMP_NUM_THREADS"] = "1"
    if config.option.markexpr == _WITHOUT_LONG:
        # DuckDB's threads spin too, which takes small queries three times the processor. Read at every connection, also by the processes
        # that tests start; DuckDB knows no other variable. `make test-all` and benchmarks leave it its threads.
        os.environ["SLURM_CPUS_ON_NODE"] = "1"
    if hasattr(config, "workerinput"):
        # A worker needs it in any case. It looks for each of its thousand functions in all modules that are loaded.
        import skops.io  # noqa: F401
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Search no garbage while modules and tests are loaded, and none in them later: it takes a worker two seconds of a processor."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> "FilesAndStacks":
    """Share the tests out by file, those of a stack as one."""
    return FilesAndStacks(config, log)


class FilesAndStacks(LoadFileScheduling):
    """The tests of a file go to one worker, and so do all those on the stack of the flights, and all on that of the census."""

    def _split_scope(self, nodeid: str) -> str:
        return _stack(nodeid) or super()._split_scope(nodeid)


def _stack(nodeid: str) -> str | None:
    """Whose data the stack of a test has, None without a stack."""
    stacks = {"census": _ON_STACK_OF_CENSUS, "flights": _ON_STACK_OF_FLIGHTS}
    return next((stack for stack, files in stacks.items() if nodeid.startswith(files)), None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests on the stack come first, and no other test uses it.

    Those that want what the machine lacks are deselected, which pytest's last line counts.
    """
    for item in items:
        if _uses_stack(item) and not item.nodeid.startswith((*_ON_STACK, _BENCHMARKS)):
            raise pytest.UsageError(
                f"{item.nodeid} uses the fixture {_STACK_FIXTURE}: add its file to _ON_STACK in tests/conftest.py."
            )
    # The files with most tests first, the demo's own before all: some want what others do to the stack not done yet.
    tests = Counter(item.path for item in items)
    places: dict[str | None, int] = {"flights": 0, "census": 1, None: 2}

    def place(item: pytest.Item) -> tuple[int, int, int]:
        stack = _stack(item.nodeid)
        kills = next((number for number, file in enumerate(_KILLS_ITS_STACK, 1) if item.nodeid.startswith(file)), 0)
        return places[stack], kills, -tests[item.path] if stack else 0

    items.sort(key=place)
    lacking = {_BROWSER_FIXTURE} if CHROMIUM is None else set()
    if not CAN_CUT_POWER:
        lacking.add(_POWER_FIXTURE)
    left_out = {item: wanted for item in items for wanted in lacking & set(getattr(item, "fixturenames", ()))}
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
        config.stash[_LEFT_OUT] = Counter(left_out.values())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what did not run and why, where nobody can miss it."""
    if config.option.markexpr == _WITHOUT_LONG:
        terminalreporter.section("long variants", yellow=True)
        terminalreporter.line("Tests marked `long` did not run: `make test-all` runs them too.")
    for wanted, count in config.stash.get(_LEFT_OUT, Counter()).items():
        terminalreporter.section("tests that did not run", yellow=True)
        terminalreporter.line(f"{count} with {wanted}: {_WITHOUT[wanted]}")


def _uses_stack(item: pytest.Item) -> bool:
    """Whether the test uses the session's stack, and not one of its file."""
    module = item.getparent(pytest.Module)
    return _STACK_FIXTURE in getattr(item, "fixturenames", ()) and not hasattr(getattr(module, "module", None), _STACK_FIXTURE)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the tests on a stack, one long chain each, have a processor when they want it: workers without one fill the time meanwhile."""
    if _stack(item.nodeid) is None and hasattr(item.config, "workerinput"):
        os.nice(max(0, _NICENESS_WITHOUT_STACK - os.nice(0)))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the stack after the last test on it: its sensors would take a fifth of a processor from the tests that follow."""
    stack = _stack(item.nodeid)
    if stack and nextitem is not None and stack != _stack(nextitem.nodeid) and _RUNNING in item.config.stash:
        control.down(item.config.stash[_RUNNING].settings)


@pytest.fixture(scope="session")
def platform(pytestconfig: pytest.Config) -> Iterator[Platform]:
    """A stack with a state folder and ports of its own; that of the flights has a Postgres elsewhere, with a password."""
    is_of_flights = _stack(os.environ["PYTEST_CURRENT_TEST"]) == "flights"
    with platform_with_canaries("platform.") if is_of_flights else temporary_platform("platform.") as platform:
        pytestconfig.stash[_RUNNING] = platform
        yield platform


@pytest.fixture(scope="session")
def demo(platform: Platform) -> Demo:
    """The main job on two months of data."""
    began = time.monotonic()
    answer = platform.mlops_process("demo", "--months", "2", "--json")
    assert answer.returncode == 0, answer.stderr
    return Demo(summary=json.loads(answer.stdout), seconds=time.monotonic() - began)


@pytest.fixture(autouse=True, scope="session")
def _failures_have_examples() -> Iterator[None]:
    """Every result of a check that fails in any test shows what failed, or tells why it cannot."""
    make = CheckRule.result

    def result(rule: CheckRule, *arguments: Any, **named: Any) -> dg.AssetCheckResult:
        made = make(rule, *arguments, **named)
        if not made.passed and "no_examples" not in made.metadata:
            values = [made.metadata[name] for name in rule.evidence.examples]
            shown = [getattr(value, "records", None) or getattr(value, "value", None) for value in values]
            assert any(shown), f"{rule.name} failed and shows no example in {', '.join(rule.evidence.examples)}: {made.metadata}"
        return made

    CheckRule.result = result  # type: ignore[method-assign]
    yield
    CheckRule.result = make  # type: ignore[method-assign]
