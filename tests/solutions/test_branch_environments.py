"""Branch environments beside the flights' stack, which is production here: what they read, and that they write nothing of it."""

import asyncio
import contextlib
import hashlib
import json
import signal
import subprocess
from collections.abc import Iterator

import canaries
import psutil
import psycopg2
import pytest
import requests
from running_stack import Demo, Platform, project_with_branches
from waiting import wait_for

from mlops_assets.access.credentials import access_token, authorization, event_stream_url
from mlops_assets.clients.bundle_record import EvidenceError, served_record
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.project import Project, current_project
from mlops_assets.core.settings import DAGSTER_DATABASE, Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.local import control, leftovers
from mlops_assets.local.supervisor import Supervisor
from mlops_assets.operations.branches.environments import Branch, find_branches, make_branch, remove_branch
from mlops_assets.predictions.prediction_log_sensor import _waiting
from mlops_assets.serving.active import CHAMPION_LINK, linked_bundle
from mlops_assets.serving.bundle_loading import load_bundle

pytestmark = pytest.mark.long

SOLUTION = "flight_delay"
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}


UNFINISHED = "query { runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) { ... on Runs { results { id } } } }"


def has_work(production: Platform) -> bool:
    """Whether something is about to be written there: by a run, or of the predictions of former tests, which a sensor has taken."""
    waiting = asyncio.run(_waiting(event_stream_url(production.settings), [SOLUTION], empty_at=None))[1]
    return any(waiting.values()) or bool(production.client.query(UNFINISHED)["runsOrError"]["results"])


def state(production: Platform) -> tuple[object, ...]:
    """Everything that production keeps: snapshots and content of the lake, events of Dagster, versions and aliases, files."""
    wait_for(lambda: not has_work(production))
    home = production.settings.home
    names = (
        "lake",
        "mlflow",
        "serving",
        "references",
        "reports",
        "signing_key",
        "access_token",
        "nats.conf",
        "dagster/dagster.yaml",
    )
    files = [file for name in names for file in ([home / name] if (home / name).is_file() else sorted((home / name).rglob("*")))]
    hashes = {
        str(file): (file.readlink() if file.is_symlink() else hashlib.sha256(file.read_bytes()).hexdigest())
        for file in files
        if file.is_file() or file.is_symlink()
    }
    versions = [(version.version, dict(version.tags)) for version in production.registry.every_version(SOLUTION)]
    return (
        production.value("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')"),
        production.fingerprints(),
        materializations(production.settings),
        sorted(versions, key=lambda version: version[0]),
        production.registry.aliases(SOLUTION),
        hashes,
    )


def materializations(settings: Settings) -> int:
    connection = psycopg2.connect(settings.postgres_connection_string(DAGSTER_DATABASE))
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'")
        [(count,)] = cursor.fetchall()
        return int(count)


@pytest.fixture
def project() -> Iterator[Project]:
    """The project, with its branches in a folder of this test."""
    with project_with_branches() as project:
        yield project


def test_a_branch_has_what_production_has_and_is_gone_without_a_trace(platform: Platform, demo: Demo, project: Project) -> None:
    production, settings = state(platform), platform.settings
    branch = make_branch(project, settings, "a-change", lambda text: None)
    assert [found.name for found in find_branches(project)] == ["a-change"]
    assert (branch.of, branch.snapshot) == ("local", production[0])
    assert make_branch(project, settings, "a-change", lambda text: None) == branch
    assert {branch.settings.dagster_port, branch.settings.nats_port}.isdisjoint({settings.dagster_port, settings.nats_port})
    assert (branch.settings.postgres_url, branch.settings.notify_urls) == (None, ())

    with control.storage(branch.settings):
        assert Platform(branch.settings).fingerprints() == production[1]
        assert materializations(branch.settings) == production[2]
        with Lake.from_settings(branch.settings).connect(read_only=False) as connection:
            connection.execute(
                f"DELETE FROM {SOLUTION}.predictions; DROP TABLE raw.flights; CREATE TABLE raw.flights AS SELECT 1 AS i"
            )
        bundle = linked_bundle(branch.settings.serving_directory / SOLUTION, CHAMPION_LINK)
        assert bundle is not None
        assert bundle.name == str(demo.summary["version"])
        # It answers here, and what a branch signs is not genuine in production.
        assert load_bundle(bundle, served_record(Signer(branch.settings.signing_key_file), bundle).files)
        with pytest.raises(EvidenceError):
            served_record(Signer(settings.signing_key_file), bundle)
    texts = (path.read_text(errors="replace") for path in branch.folder.rglob("*") if path.is_file())
    assert canaries.found_in(canaries.ALL, texts) == set()
    assert state(platform) == production

    assert remove_branch(project, "a-change") is not None
    assert not project.branches_directory.exists()
    assert remove_branch(project, "a-change") is None


def test_an_interrupted_up_is_done_again_and_removed_as_well(platform: Platform, demo: Demo, project: Project) -> None:
    production = state(platform)

    def kill(text: str) -> None:
        if text == "Copying the registry":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_branch(project, platform.settings, "cut", kill)
    [incomplete] = find_branches(project)
    assert (incomplete.name, incomplete.made) == ("cut", None)
    assert make_branch(project, platform.settings, "cut", lambda text: None).made is not None
    (project.branches_directory / "cut" / "branch.env").unlink()
    assert remove_branch(project, "cut") is not None
    assert not project.branches_directory.exists()
    assert state(platform) == production


def test_branches_run_side_by_side_and_write_nothing_of_production(platform: Platform, demo: Demo) -> None:
    production = state(platform)
    started = platform.mlops_process("branch", "up", "Side-A")
    assert started.returncode == 0, started.stderr
    assert "Environment branch-side-a" in started.stdout
    second = platform.mlops_process("branch", "up", "side-b")
    assert second.returncode == 0, second.stderr
    branches = {branch["name"]: branch for branch in json.loads(platform.mlops("branch", "list", "--json").stdout)}
    assert {name: branch["state"] for name, branch in branches.items()} == {"side-a": "up", "side-b": "up"}
    found = {branch.name: branch for branch in find_branches(current_project())}
    first = found["side-a"]
    try:
        assert "Environment branch-side-a" in page(first.settings, first.settings.dagster_url)
        assert "Environment branch-side-a" in page(first.settings, first.settings.mlflow_url)
        assert "Environment branch-side-a" in page(first.settings, first.settings.serving_url + "/docs")
        answered = on_branch(platform, "predict", SOLUTION, "--example")
        assert answered.returncode == 0, answered.stderr
        asked = on_branch(platform, "predict", SOLUTION, "--json", json.dumps(json.loads(answered.stdout)))
        assert asked.returncode == 0, asked.stderr
        # Spine, dataset, model, gates, online features and deployment, while production is down for a part of it.
        control.down(platform.settings)
        trained = on_branch(platform, "train", SOLUTION, "--date", "2013-02-11")
        assert trained.returncode == 0, trained.stdout + trained.stderr
        control.ensure_up(platform.settings)
        reported = on_branch(platform, "status", "--json")
        assert json.loads(reported.stdout)["environment"] == "branch-side-a"
        assert json.loads(reported.stdout)["solutions"][SOLUTION]["champion"] != demo.summary["version"]
        assert unnamed_lines(first.settings) == {}
        assert state(platform) == production
    finally:
        kill_everything(first)
        removed = platform.mlops_process("branch", "down", "side-a")
        others = platform.mlops_process("branch", "down", "side-b")
    assert (removed.returncode, others.returncode) == (0, 0), removed.stderr + others.stderr
    again = platform.mlops_process("branch", "down", "side-a")
    assert (again.returncode, again.stdout.strip()) == (0, "There is no branch side-a.")
    assert not current_project().branches_directory.exists()
    assert [leftovers.find_processes(branch.settings) for branch in found.values()] == [[], []]
    assert state(platform) == production


def on_branch(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the branch from a shell whose variables are all those of production."""
    return platform.mlops_process("--env", "branch-side-a", *arguments)


def page(settings: Settings, url: str) -> str:
    headers = authorization(access_token(settings)) | NAVIGATION
    return requests.get(url, headers=headers, timeout=30).text


def unnamed_lines(settings: Settings) -> dict[str, list[str]]:
    """Lines of the logs of all servers and workers that do not begin with the environment."""
    logs = [*settings.log_directory.glob("*.log"), *settings.run_worker_directory.glob("*.log")]
    named = {log.name: log.read_text().splitlines() for log in logs}
    assert sum(map(len, named.values())) > len(named)
    unnamed = {name: [line for line in lines if not line.startswith("[branch-side-a] ")] for name, lines in named.items()}
    return {name: lines for name, lines in unnamed.items() if lines}


def kill_everything(branch: Branch) -> None:
    """Kill the supervisor of a branch and all that it started at once."""
    processes = leftovers.find_processes(branch.settings)
    supervisor = psutil.Process(Supervisor(branch.settings).pid())
    for process in (supervisor, *processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
