"""Bundles in a real object store: found again, followed by servers, verified, and a whole chain with its state there."""

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import Fitted, fit_flights, push_planes, record_of
from clinic_chain import Clinic, Registry
from nats_server import NatsServer
from object_storage import SECRET, Door, ObjectStore
from online_server import SOLUTION, OnlineServer, load
from registry_database import new_registry_url
from waiting import wait_for

from mlops_assets.clients.bundle_record import ACCEPTANCE_TAG, BundleRecord, folder_files
from mlops_assets.clients.notices import FOLLOWED, follow_notices, publish_notice
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.errors import StackError
from mlops_assets.core.object_storage import ObjectFolder
from mlops_assets.core.settings import LAKE_DATABASE, Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import fingerprint
from mlops_assets.local.environment_owner import claim_servers
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.predictions.predictions import build_predictions
from mlops_assets.schema.solution import Serving
from mlops_assets.serving import object_mirror
from mlops_assets.serving.bundle_store import SolutionBundles, StoredBundle, open_bundle_store, open_followed_store, prune
from mlops_assets.serving.live import LiveSolutions

pytestmark = pytest.mark.long

DAY = "2020-02-20"


@pytest.fixture(scope="module")
def versions() -> dict[int, Fitted]:
    return {version: fit_flights("regression", version=version, seed=version) for version in (1, 2)}


@pytest.fixture(scope="module")
def database(create_database: Callable[[str], str], postgres_directory: Path) -> str:
    """The address of a Postgres with the lake's database."""
    create_database(LAKE_DATABASE)
    return f"postgresql://postgres@/postgres?host={postgres_directory}"


@pytest.fixture(autouse=True)
def environment(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # MLflow keeps its client of a process for whoever has the same address here: another test's store is gone.
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", store.endpoint)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def settings(store: ObjectStore, database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """An installation with a prefix of its own. No event stream answers."""
    storage = f"s3://{store.bucket}/{request.node.name}"
    return Settings(home=tmp_path / "home", storage=storage, bundle_store="object_storage", postgres_url=database, nats_port=1)


def put(settings: Settings, version: int, fitted: Fitted | None = None) -> BundleRecord:
    """Put the bundle of a version there as `model` does, and return its record."""
    made = settings.home.parent / f"made_{version}"
    if fitted:
        fitted.write(made)
    else:
        made.mkdir()
        (made / "model.onnx").write_text(f"model {version}")
    record = record_of(SOLUTION, version, files=folder_files(made), engine="process", engine_reason="a test")
    of_solution(settings).put(StoredBundle(version, record.sha256), made)
    return record


def of_solution(settings: Settings) -> SolutionBundles:
    return open_bundle_store(settings).of(SOLUTION)


def promote(settings: Settings, record: BundleRecord, alias: str = "champion") -> None:
    signature = record.sign(Signer(settings.signing_key_file), "accepted")[ACCEPTANCE_TAG]
    of_solution(settings).activate(alias, record, signature)


def other_machine(settings: Settings) -> Settings:
    """Another state folder with the same key."""
    other = replace(settings, home=settings.home.parent / "other")
    other.home.mkdir()
    Signer(settings.signing_key_file).sign("accepted", {})
    shutil.copy(settings.signing_key_file, other.signing_key_file)
    return other


def test_bundles_are_found_by_version_and_hash_on_every_machine(settings: Settings) -> None:
    records = {version: put(settings, version) for version in (1, 2, 3)}
    bundles = of_solution(other_machine(settings))
    assert [bundle.version for bundle in bundles.stored()] == [3, 2, 1]
    folder = bundles.get(StoredBundle(2, records[2].sha256))
    assert folder is not None
    assert (folder / "model.onnx").read_text() == "model 2"
    (folder / "model.onnx").write_text("changed")
    assert (bundles.get(StoredBundle(2, records[2].sha256)) or Path()).joinpath("model.onnx").read_text() == "model 2"
    assert bundles.get(StoredBundle(2, records[1].sha256)) is None
    promote(settings, records[1])
    promote(settings, records[2], "champion-north")
    assert (bundles.active("champion") or Path()).name == "1"
    assert (bundles.aliases(), bundles.active("challenger")) == (["champion", "champion-north"], None)
    bundles.write_options(Serving(canary=0.5))
    assert of_solution(settings).read_options() == Serving(canary=0.5)
    assert open_bundle_store(settings).solutions() == [SOLUTION]
    with of_solution(settings).using():
        assert prune(bundles, needed=(), keep=0) == []
    assert prune(bundles, needed=(), keep=0) == [3]
    bundles.deactivate("champion-north")
    assert prune(bundles, needed=(), keep=0) == [2]


def test_servers_follow_and_refuse_what_is_not_the_signed_bundle(
    settings: Settings,
    versions: dict[int, Fitted],
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(object_mirror, "FOLLOW_SECONDS", 0.0)
    monkeypatch.setattr(object_mirror, "_RETRY_SECONDS", 0.0)
    records = {version: put(settings, version, fitted) for version, fitted in versions.items()}
    of_solution(settings).write_options(Serving())
    promote(settings, records[1])
    other = other_machine(settings)
    online = LmdbStore(other.online_store_directory)
    push_planes(online)

    def serve() -> LiveSolutions:
        return LiveSolutions(open_followed_store(other), online, Signer(other.signing_key_file))

    def look(solutions: LiveSolutions) -> tuple[int | None, str]:
        solutions.refresh()
        solution = solutions[SOLUTION]
        return solution.champions and solution.champions.default.contract.version, "".join(solution.problems)

    with closing(Door(store.endpoint)) as door:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", door.endpoint)
        server = serve()
        assert look(server) == (1, "")
        # One byte of version 2 is another one.
        storage = ObjectFolder(str(settings.storage))
        model = f"bundles/{SOLUTION}/2-{records[2].sha256}/model.onnx"
        good = storage.read(model)
        assert good is not None
        storage.write(model, good[:-1] + b"?")
        promote(settings, records[2])
        version, problem = look(server)
        assert version == 1
        assert "SHA-256" in problem
        assert "What served before goes on" in caplog.text
        storage.write(model, good)
        assert look(server) == (2, "")
        # A record that nobody signed.
        of_solution(settings).activate("champion", records[1], "0" * 64)
        assert look(server)[0] == 2
        assert "signature" in look(server)[1]
        promote(settings, records[1])
        assert look(server) == (1, "")
        # While the store is away, what serves goes on, in a process that starts as well.
        door.close()
        assert [look(server), look(serve())] == [(1, ""), (1, "")]
        assert f"The object store at {door.endpoint} does not answer" in caplog.text
        door.open()
        of_solution(settings).deactivate("champion")
        assert look(server) == (None, "")
        assert "The object store is back." in caplog.text


def test_a_server_swaps_under_load_within_five_seconds(settings: Settings, versions: dict[int, Fitted], tmp_path: Path) -> None:
    server = OnlineServer(tmp_path / "server", versions, processes=1)
    shutil.rmtree(server.folder)
    server.settings = replace(server.settings, storage=settings.storage, bundle_store="object_storage", nats_port=1)
    settings = replace(settings, home=server.settings.home)
    records = {version: put(settings, version, fitted) for version, fitted in versions.items()}
    of_solution(settings).write_options(Serving())
    promote(settings, records[1])
    shutil.rmtree(server.folder)
    with server, load(server, callers=2) as found:
        for version in (2, 1):
            record, began = records[version], time.monotonic()
            # As on another machine: no file of this one tells.
            signature = record.sign(Signer(settings.signing_key_file), "accepted")[ACCEPTANCE_TAG]
            of_solution(replace(settings, home=tmp_path / "elsewhere")).activate("champion", record, signature)
            wait_for(lambda version=version: server.versions() == {version})
            assert time.monotonic() - began < 5.5
    assert (set(found.statuses), found.errors) == ({200}, [])
    assert set(found.versions) == {1, 2}
    assert SECRET not in server.log()


def test_a_notice_has_servers_of_other_machines_look_at_once(nats: NatsServer, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / FOLLOWED).touch()

    async def follow() -> None:
        stopping = asyncio.Event()
        following = asyncio.create_task(follow_notices(nats.url, there, stopping))
        while (there / FOLLOWED).exists():
            await asyncio.to_thread(publish_notice, nats.url, here)
            await asyncio.sleep(0.05)
        stopping.set()
        await following

    asyncio.run(asyncio.wait_for(follow(), 240))
    assert not (here / FOLLOWED).exists()
    nats.kill()
    publish_notice(nats.url, here)


def chain(settings: Settings, lake: Lake, tmp_path: Path) -> dict[str, str]:
    """Run a clinic from its visits to predictions, and return the fingerprint of each table."""
    registry = Registry(new_registry_url(tmp_path), "", Signer(settings.signing_key_file))
    clinic = Clinic("binary_classification", lake, registry, settings)
    if settings.storage:
        registry.client.create_experiment(clinic.name, artifact_location=settings.mlflow_artifact_location)
    clinic.train(DAY)
    clinic.assets.append(build_predictions(clinic.inputs))
    assert clinic.materialize("2020-02-21", ["predictions"]).success
    with lake.connect(read_only=True) as connection:
        tables = connection.execute("SELECT table_schema || '.' || table_name FROM information_schema.tables").fetchall()
        return {table: fingerprint(connection, f"lake.{table}") for (table,) in tables}


def test_a_chain_gives_the_same_rows_as_on_a_folder(
    settings: Settings, make_lake: Callable[[], Lake], store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for name, storage in (("folder", None), ("storage", settings.storage)):
        home = tmp_path / name
        home.mkdir()
        monkeypatch.chdir(home)
        bundles = "object_storage" if storage else "folder"
        of_place = replace(settings, home=home / "home", storage=storage, bundle_store=bundles)
        lake = replace(make_lake(), storage=ObjectFolder(f"{storage}/lake") if storage else None)
        made.append(chain(of_place, lake, home))
        if storage:
            assert not list(lake.data_directory.iterdir())
            shutil.rmtree(of_place.serving_directory)
    assert made[0] == made[1]
    assert {name.split("/")[1] for name in store.names(f"{settings.storage}".removeprefix("s3://parcels/"))} == {
        *("lake", "mlflow", "bundles", "served")
    }
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_storage_and_a_postgres_are_each_of_one_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_ENV", "prod")
    for _ in range(2):
        claim_servers(settings)
    monkeypatch.setenv("MLOPS_ENV", "dev")
    with pytest.raises(StackError, match=r"^The Postgres of MLOPS_POSTGRES_URL is of the environment prod"):
        claim_servers(settings)
    with pytest.raises(StackError, match=f"^{settings.storage} is of the environment prod, and this process is of dev"):
        claim_servers(replace(settings, postgres_url=None))
