"""A replay under load that is disturbed, one fault a step, and compared with an undisturbed one. No tests here."""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import islice, pairwise
from pathlib import Path

from fault_kinds import Fault, Installation
from online_server import Load, asked
from running_stack import Platform
from waiting import wait_for

from mlops_assets.access.credentials import serving_token
from mlops_assets.core.errors import StackError
from mlops_assets.local import control, interrupted_runs
from mlops_assets.operations.events import requests_of_day
from mlops_assets.operations.replay import Replay
from mlops_assets.operations.replay_plan import Period, ReplayPlan
from mlops_assets.operations.runs import wait_for_run
from mlops_assets.operations.stage_runs import run_stage
from mlops_assets.serving.shipper import pending_bytes

SOLUTION = "flight_delay"
FIRST, LAST = date(2013, 3, 4), date(2013, 12, 31)
"""The days that arrive, one a step; those before are there."""

_ASKED_DAY = date(2013, 1, 10)
"""Of the rows of the load: no report of the replayed days has to do with it."""
CALLERS, PAUSE_SECONDS = 2, 0.1
_LOG = f"{SOLUTION}.prediction_log"

_STEP_SECONDS, _RECOVERY_SECONDS = 900.0, 300.0
_RUNS = """query InProgress { runsOrError(filter: {statuses: [STARTING, STARTED]}) { ... on Runs { results {
  runId tags { key value } } } } }"""


@dataclass(frozen=True)
class Reference:
    """An undisturbed step: how long it took, and the content of every table after it."""

    seconds: float
    tables: dict[str, str]


@dataclass(frozen=True)
class Course:
    """The undisturbed steps, in order, kept in a file."""

    steps: list[Reference]

    @classmethod
    def read(cls, path: Path) -> "Course":
        """The steps that are known: none when there is no file."""
        return cls([Reference(**each) for each in json.loads(path.read_text())] if path.exists() else [])

    def write(self, path: Path) -> None:
        """Keep the steps."""
        path.write_text(json.dumps([asdict(step) for step in self.steps]))


@dataclass
class Outcome:
    """What became of one disturbed step. `problems`: what should not be (empty: all is as undisturbed)."""

    fault: str
    moment: str
    seen: str
    recovery: float
    problems: list[str] = field(default_factory=list)

    def row(self) -> str:
        """A row of the table."""
        equal = "; ".join(self.problems) or "yes"
        return f"| {self.fault} | {self.moment} | {self.seen} | {self.recovery:.0f} | {equal} |"


class Trials:
    """The steps of one replay on one installation. The tables `differing` are not as in the course, since another installation took it."""

    def __init__(self, installation: Installation, course: Course, differing: frozenset[str] = frozenset()):
        self.installation, self.platform = installation, installation.platform
        self._differing = differing
        self._course, self._load = course, Load()
        self._replay = Replay(self.platform.settings, ReplayPlan(SOLUTION, Period(FIRST, LAST), "day"), None)
        self._periods = enumerate(self._replay.plan.steps())
        self._different: set[str] = set()
        self._pool = ThreadPoolExecutor()

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Ask the online server all the while, with decisions acted on."""
        settings = self.platform.settings
        row = requests_of_day(settings, SOLUTION, _ASKED_DAY, look_up=False)[0]
        headers = {"Authorization": f"Bearer {serving_token(settings)}", "Content-Type": "application/json"}
        with (
            self._replay.automation(),
            asked(settings, SOLUTION, row, headers, callers=CALLERS, patience=10, pause=PAUSE_SECONDS) as self._load,
        ):
            yield

    def undisturbed(self, count: int) -> Course:
        """Take the steps behind those that are known, until there are so many."""
        steps = list(self._course.steps)
        with self._replay.automation():
            for _, period in islice(self._periods, len(steps), count):
                began = time.monotonic()
                self._step(period)
                steps.append(Reference(time.monotonic() - began, tables(self.platform)))
        return Course(steps)

    def disturbed(self, fault: Fault) -> Outcome:
        """Take the next step, with the fault at some moment of it."""
        number, period = next(self._periods)
        reference, answered, refused = self._course.steps[number], len(self._load.prediction_ids), self._refused()
        began, asked_at = time.monotonic(), len(self._load.answered_at)
        step = self._pool.submit(self._step, period)
        if not fault.waits:
            time.sleep(random.Random(fault.name).uniform(0.05, 0.6) * reference.seconds)
        moment = self._in_progress()
        try:
            detail = fault.apply(self.installation)
        except AssertionError:
            # What it should hit was not there: the next step begins when this one has ended.
            step.result(_STEP_SECONDS)
            raise
        over = time.monotonic()
        problems = self._recover()
        recovery = time.monotonic() - over
        problems += self._finish(step, period)
        took = time.monotonic() - began
        problems += self._check_log(answered)
        problems += self._check_tables(reference)
        gap = _longest(self._load.answered_at[max(0, asked_at - 1) :])
        seen = (
            f"{detail}; the step took {took:.0f} s instead of {reference.seconds:.0f}; {len(self._load.prediction_ids) - answered:,} "
            f"predictions, {self._refused() - refused} requests without, none for {gap:.1f} s"
        )
        return Outcome(fault.name, moment, seen, recovery, problems)

    def _step(self, period: Period) -> None:
        client = self._replay.client
        self._replay.run_step(
            period,
            lambda stage: run_stage(client, stage, lambda state: None),
            lambda run_id, name: wait_for_run(client, run_id, lambda state: None),
        )

    def _in_progress(self) -> str:
        """The runs that are executed, with their steps: the platform's own one by one."""
        texts = []
        for run in self.platform.client.query(_RUNS)["runsOrError"]["results"]:
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            steps = ", ".join(self.platform.client.run(run["runId"]).running) or "begins"
            texts.append(f"{tags['mlops/purpose']}: {steps}" if "mlops/purpose" in tags else steps)
        return "; ".join(sorted(texts)) or "between two runs"

    def _recover(self) -> list[str]:
        """Wait until every server answers, the load too, and nothing is stuck. Returns what is not so in time."""
        answered, deadline = len(self._load.prediction_ids), time.monotonic() + _RECOVERY_SECONDS
        while problems := self._unrecovered(answered):
            if time.monotonic() > deadline:
                return problems
            time.sleep(0.5)
        return []

    def _unrecovered(self, answered: int) -> list[str]:
        states = control.status(self.platform.settings)
        if down := [f"{entry['name']} is {entry['state']}" for entry in states if entry["state"] != "running"]:
            return down
        if len(self._load.prediction_ids) <= answered:
            return ["the online server answers nothing"]
        return [f"stuck: {each.name} {each.reason}" for each in interrupted_runs.find_blockages(self.platform.settings)]

    def _finish(self, step: "Future[None]", period: Period) -> list[str]:
        """Wait for the end of the step. One that the command gave up is taken again, as a person would do."""
        try:
            step.result(_STEP_SECONDS)
        except StackError as error:
            self.installation.up()
            self._step(period)
            return [f"the command ended: {' '.join(str(error).split())[:300]}"]
        return []

    def _check_log(self, answered: int) -> list[str]:
        """Whether each prediction of this step that was answered is in the log once, when all have come there."""
        acknowledged = set(self._load.prediction_ids[answered:])

        def missing() -> set[str]:
            return acknowledged - {row for (row,) in self.platform.rows(f"SELECT prediction_id FROM {_LOG}")}

        try:
            wait_for(lambda: not missing(), every=2)
        except AssertionError:
            waiting = pending_bytes(self.platform.settings.spool_directory)
            return [f"{len(missing())} predictions are not in the log; {waiting} bytes in the spool"]
        rows, ids = self.platform.rows(f"SELECT count(*), count(DISTINCT prediction_id) FROM {_LOG}")[0]
        return [f"{rows - ids} predictions are in the log twice"] if rows != ids else []

    def _check_tables(self, reference: Reference) -> list[str]:
        """The tables that differ from those of the undisturbed step, once."""
        now = tables(self.platform)
        names = (now.keys() | reference.tables.keys()) - self._differing
        different = {name for name in names if now.get(name) != reference.tables.get(name)}
        new, self._different = different - self._different, different
        return [f"different: {', '.join(sorted(new))}"] if new else []

    def _refused(self) -> int:
        return self._load.answered - self._load.statuses[200] + len(self._load.errors)


def tables(platform: Platform) -> dict[str, str]:
    """The content of every table but the log of the predictions that the load asks for."""
    return {name: content for name, content in platform.fingerprints().items() if name != _LOG}


def write_table(page: Path, outcomes: list[Outcome], order: list[str]) -> None:
    """Put the outcomes into the table of a page, beside those of faults that were not done this time."""
    begin, end = "<!-- faults -->\n", "<!-- end -->"
    before, _, rest = page.read_text().partition(begin)
    table, _, after = rest.partition(end)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines() if line.startswith("| ")}
    rows |= {outcome.fault: outcome.row() for outcome in outcomes}
    heading = "| fault | at | seen | recovery, s | as undisturbed |\n|---|---|---|---|---|"
    lines = "\n".join(rows[name] for name in order if name in rows)
    page.write_text(f"{before}{begin}\n{heading}\n{lines}\n\n{end}{after}")


def _longest(moments: list[float]) -> float:
    return max((later - earlier for earlier, later in pairwise(moments)), default=0.0)
