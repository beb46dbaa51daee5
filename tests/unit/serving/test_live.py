"""Following the links: a new bundle serves only when it can, and a request never sees half of two."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from bundles import Fitted, fit_flights, push_planes, sign_record

from mlops_assets.clients.bundle_record import folder_files
from mlops_assets.clients.signatures import Signer
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.schema.solution import Serving
from mlops_assets.serving import live
from mlops_assets.serving.active import CHALLENGER_LINK, CHAMPION_LINK, activate, champion_link, deactivate, write_options
from mlops_assets.serving.bundle import file_hash, write_bundle
from mlops_assets.serving.contract import RequestColumn, Segment
from mlops_assets.serving.folder_store import FolderBundles, FolderStore
from mlops_assets.serving.live import LiveModel, LiveSolution, LiveSolutions, Model
from mlops_assets.serving.reports import ProcessReport, follow_links, read_reports
from mlops_assets.serving.requests import Row


@pytest.fixture(scope="module")
def versions() -> dict[int, Fitted]:
    return {version: fit_flights("regression", version=version, seed=version) for version in (1, 2)}


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "signing_key")


@pytest.fixture
def store(tmp_path: Path) -> LmdbStore:
    store = LmdbStore(tmp_path / "store")
    push_planes(store)
    return store


@pytest.fixture
def folder(tmp_path: Path, versions: dict[int, Fitted], signer: Signer) -> Path:
    folder = tmp_path / "serving" / "flights"
    for version, fitted in versions.items():
        fitted.deploy(folder / str(version), signer)
    return folder


def served(model: LiveModel) -> int | None:
    return model.model.contract.version if model.model else None


def test_it_follows_the_link_forward_and_back(folder: Path, signer: Signer, store: LmdbStore) -> None:
    champion = LiveModel(FolderBundles(folder), CHAMPION_LINK, store, signer, None)
    assert (champion.refresh(Serving()), served(champion)) == (False, None)
    for version in (1, 2, 1):
        activate(folder / str(version), CHAMPION_LINK)
        assert (champion.refresh(Serving()), champion.refresh(Serving()), served(champion)) == (True, False, version)
    deactivate(folder, CHAMPION_LINK)
    assert (champion.refresh(Serving()), served(champion)) == (True, None)


def test_a_bundle_that_was_altered_leaves_the_old_one(
    folder: Path, signer: Signer, store: LmdbStore, caplog: pytest.LogCaptureFixture
) -> None:
    champion = LiveModel(FolderBundles(folder), CHAMPION_LINK, store, signer, None)
    activate(folder / "1", CHAMPION_LINK)
    champion.refresh(Serving())
    good = (folder / "2" / "model.onnx").read_bytes()
    (folder / "2" / "model.onnx").write_bytes(good[:-1] + b"?")
    activate(folder / "2", CHAMPION_LINK)
    assert (champion.refresh(Serving()), champion.refresh(Serving()), served(champion)) == (False, False, 1)
    assert champion.problem is not None
    assert champion.problem.startswith("flights/2 does not serve as champion: BundleError: ")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "version 1 goes on" in caplog.text
    # Mended, it serves at the next try; going back to the one that serves ends the alarm at once.
    activate(folder / "1", CHAMPION_LINK)
    assert (champion.refresh(Serving()), champion.problem, served(champion)) == (False, None, 1)
    (folder / "2" / "model.onnx").write_bytes(good)
    activate(folder / "2", CHAMPION_LINK)
    assert (champion.refresh(Serving()), served(champion)) == (True, 2)


@pytest.mark.parametrize("forged", ["threshold", "model and contract", "record", "record of another version", "no record"])
def test_a_bundle_that_is_not_the_accepted_one_does_not_serve(
    folder: Path, signer: Signer, store: LmdbStore, versions: dict[int, Fitted], forged: str
) -> None:
    champion = LiveModel(FolderBundles(folder), CHAMPION_LINK, store, signer, None)
    activate(folder / "1", CHAMPION_LINK)
    champion.refresh(Serving())
    contract, record = folder / "2" / "contract.json", folder / "2.json"
    expected = f"{contract} was changed after promotion"
    match forged:
        case "threshold":
            contract.write_text(contract.read_text().replace('"maximum": 2', '"maximum": 3', 1))
        case "model and contract":
            model = versions[1].model
            (folder / "2" / "model.onnx").write_bytes(model)
            contract.write_text(versions[2].contract.model_copy(update={"model_sha256": file_hash(model)}).model_dump_json())
            expected = f"{contract}, {folder / '2' / 'model.onnx'} was changed after promotion"
        case "record":
            hashes = folder_files(folder / "2") | {"contract.json": "0" * 64}
            record.write_text(record.read_text().replace(folder_files(folder / "2")["contract.json"], hashes["contract.json"]))
            expected = "its signature does not fit. Deploy the version again: mlops promote flights --to 2"
        case "record of another version":
            record.write_text((folder / "1.json").read_text())
            expected = "its signature does not fit. Deploy the version again: mlops promote flights --to 2"
        case _:
            record.unlink()
            expected = "the signed record of the bundle, is missing. Deploy the version again: mlops promote flights --to 2"
    activate(folder / "2", CHAMPION_LINK)
    assert (champion.refresh(Serving()), served(champion)) == (False, 1)
    assert expected in str(champion.problem)
    # Nor does a process that starts now.
    started = LiveModel(FolderBundles(folder), CHAMPION_LINK, store, signer, None)
    assert (started.refresh(Serving()), served(started)) == (False, None)


def test_a_bundle_whose_features_are_not_online_is_tried_again(
    folder: Path, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_RETRY_SECONDS", 0)
    empty = LmdbStore(tmp_path / "empty")
    champion = LiveModel(FolderBundles(folder), CHAMPION_LINK, empty, signer, None)
    activate(folder / "1", CHAMPION_LINK)
    assert (champion.refresh(Serving()), served(champion)) == (False, None)
    assert "planes version 1 is not in the online store" in str(champion.problem)
    push_planes(empty)
    assert (champion.refresh(Serving()), served(champion), champion.problem) == (True, 1, None)


def test_every_answer_under_load_is_of_one_whole_version(
    folder: Path, signer: Signer, store: LmdbStore, versions: dict[int, Fitted]
) -> None:
    champion = LiveModel(FolderBundles(folder), CHAMPION_LINK, store, signer, None)
    activate(folder / "1", CHAMPION_LINK)
    champion.refresh(Serving())
    body = msgspec.json.encode(versions[1].sample.rows[0].request)
    expected = {version: ask(Model.load(folder / str(version), store, signer, Serving(), None), body)[1] for version in versions}
    assert len(set(expected.values())) == 2
    done = threading.Event()

    def load() -> set[tuple[int, float | None]]:
        found = set()
        while not done.is_set():
            assert champion.model is not None
            found.add(ask(champion.model, body))
        return found

    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(load) for _ in range(3)]
        for version in (2, 1, 2, 1, 2):
            activate(folder / str(version), CHAMPION_LINK)
            champion.refresh(Serving())
        done.set()
    assert set().union(*(answer.result() for answer in answers)) == {(1, expected[1]), (2, expected[2])}


def ask(model: Model, body: bytes) -> tuple[int, float | None]:
    row = model.decoder.decode(body, datetime.now(UTC))
    assert isinstance(row, Row)
    [scored] = model.scorer.score([row])
    return scored.model_version, scored.outputs.value


def test_a_challenger_is_loaded_while_the_options_want_it(folder: Path, signer: Signer, store: LmdbStore) -> None:
    solutions = LiveSolutions(FolderStore(folder.parent), store, signer)
    (folder.parent / ".hidden").mkdir()
    activate(folder / "1", CHAMPION_LINK)
    activate(folder / "2", CHALLENGER_LINK)
    assert solutions.refresh()
    assert list(solutions) == ["flights"]
    champions = solutions["flights"].champions
    assert champions is not None
    assert (champions.default.contract.version, served(solutions["flights"].challenger)) == (1, None)
    write_options(folder, Serving(canary=0.5))
    solutions.refresh()
    assert served(solutions["flights"].challenger) == 2
    write_options(folder, Serving())
    solutions.refresh()
    assert served(solutions["flights"].challenger) is None


def test_rows_of_a_segment_are_scored_by_its_champion(
    folder: Path, signer: Signer, store: LmdbStore, versions: dict[int, Fitted]
) -> None:
    segment = {"column": "carrier", "value": "UA"}
    own = versions[2].contract.model_copy(update={"version": 3, "segment": Segment(**segment)})
    write_bundle(folder / "3", versions[2].model, versions[2].sample, own)
    sign_record(folder / "3", signer)
    activate(folder / "1", CHAMPION_LINK)
    activate(folder / "3", champion_link("UA"))
    solution = LiveSolution(folder.name, FolderBundles(folder), store, signer, None)
    assert solution.refresh()
    champions = solution.champions
    assert champions is not None
    example = versions[1].sample.rows[0].request
    body = msgspec.json.encode([example | {"carrier": carrier} for carrier in ("AA", "UA", "B6", "UA")])
    rows = champions.default.decoder.decode(body, datetime.now(UTC))
    assert isinstance(rows, list)
    scored = champions.score(rows)
    assert [each.model_version for each in scored] == [1, 3, 1, 3]
    assert [each.features["carrier"] for each in scored] == ["AA", "UA", "B6", "UA"]
    solution.refresh()
    assert solution.champions is champions
    deactivate(folder, champion_link("UA"))
    assert solution.refresh()
    assert solution.champions is not None
    assert {each.model_version for each in solution.champions.score(rows)} == {1}


def test_a_segment_that_needs_other_columns_does_not_come_to_serve(
    folder: Path, signer: Signer, store: LmdbStore, versions: dict[int, Fitted]
) -> None:
    fitted = versions[2]
    changes = {"version": 3, "segment": Segment(column="carrier", value="UA")}
    changes["entity_keys"] = (*fitted.contract.entity_keys, RequestColumn(name="gate", type="varchar"))
    rows = tuple(row.model_copy(update={"request": row.request | {"gate": "B7"}}) for row in fitted.sample.rows)
    sample = fitted.sample.model_copy(update={"rows": rows})
    changes["sample_sha256"] = file_hash(sample.to_bytes())
    write_bundle(folder / "3", fitted.model, sample, fitted.contract.model_copy(update=changes))
    sign_record(folder / "3", signer)
    activate(folder / "1", CHAMPION_LINK)
    solution = LiveSolution(folder.name, FolderBundles(folder), store, signer, None)
    solution.refresh()
    before = solution.champions
    activate(folder / "3", champion_link("UA"))
    solution.refresh()
    assert solution.champions is before
    assert "needs gate, which callers of version 1 do not give" in solution.problems[0]


def test_a_process_reports_what_it_serves_until_it_ends(folder: Path, signer: Signer, store: LmdbStore, tmp_path: Path) -> None:
    activate(folder / "1", CHAMPION_LINK)
    stopping, looked, reports = threading.Event(), threading.Semaphore(0), tmp_path / "reports"
    solutions = LiveSolutions(FolderStore(folder.parent), store, signer)
    thread = threading.Thread(
        target=follow_links, args=(solutions, reports, "online"), kwargs={"stopping": stopping, "changed": looked.release}
    )
    thread.start()
    for _ in range(2):
        assert looked.acquire(timeout=20)
    [report] = read_reports(reports)
    model = report.models["flights"]
    assert (report.channel, model.version, model.segments, model.problems) == ("online", 1, {}, ())
    assert not report.is_stale(datetime.now(UTC))
    assert report.is_stale(datetime.now(UTC) + timedelta(minutes=1))
    stopping.set()
    thread.join()
    assert read_reports(reports) == []


def test_the_report_of_another_process_of_that_number_is_none(tmp_path: Path) -> None:
    report = ProcessReport(channel="online", pid=1, started=-1.0, written_at=datetime.now(UTC), models={})
    (tmp_path / "online-1.json").write_bytes(msgspec.json.encode(report))
    assert read_reports(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
