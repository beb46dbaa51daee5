"""The online server as its callers see it: real processes, real connections, bundles that change under load, and hostile requests."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
import pyarrow as pa
import pytest
import requests
from bundles import load as load_bundle
from bundles import sign_record
from online_server import SOLUTION, TOKEN, OnlineServer, flights, kill, load
from playwright.sync_api import Browser, expect, sync_playwright
from running_stack import CHROMIUM
from waiting import wait_for

from mlops_assets.access.callers import add_caller, remove_caller
from mlops_assets.clients.signatures import Signer
from mlops_assets.local.environment import scripts_directory
from mlops_assets.local.links import link
from mlops_assets.serving.contract import BaseVersion


@contextmanager
def serving(engine: str) -> Iterator[OnlineServer]:
    home = Path(tempfile.mkdtemp(prefix="online.", dir="/tmp"))
    with OnlineServer(home, flights(3), engine=engine) as server:
        server.promote(1)
        wait_for(lambda: server.versions() == {1})
        yield server
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def server() -> Iterator[OnlineServer]:
    with serving("process") as server:
        yield server


@pytest.fixture(scope="module")
def worker_server() -> Iterator[OnlineServer]:
    with serving("worker") as server:
        yield server


@pytest.fixture(params=["server", pytest.param("worker_server", marks=pytest.mark.long)])
def either_server(request: pytest.FixtureRequest) -> OnlineServer:
    """A server whose models run in the process that accepted the request, and one whose models run in workers of LitServe."""
    return request.getfixturevalue(request.param)


def test_one_row_and_many_are_answered(either_server: OnlineServer) -> None:
    server = either_server
    one = server.post(server.row).json()
    assert one["prediction_id"].startswith(f"{SOLUTION}:online:")
    assert (one["model_version"], one["flags"]) == (1, {"planes": "ok"})
    many = server.post(b"[" + b",".join([server.row] * 300) + b"]").json()
    assert [answer["score"] for answer in many] == pytest.approx([one["score"]] * 300)
    overridden = json.loads(server.row) | {"features": {"mean_delay": 9, "flights": 1, "home": None}}
    assert server.post(json.dumps(overridden).encode()).json()["flags"] == {"planes": "request"}
    unknown = json.loads(server.row) | {"tailnum": "N404"}
    assert server.post(json.dumps(unknown).encode()).json()["flags"] == {"planes": "missing"}
    late = json.loads(server.row) | {"predicted_at": "2021-01-01T00:00:00Z"}
    assert server.post(json.dumps(late).encode()).json()["flags"] == {"planes": "stale"}


def test_a_running_server_takes_a_new_caller_and_its_processes_limit_it_together(server: OnlineServer) -> None:
    token = add_caller(server.settings, "shop", (SOLUTION,), requests_per_second=1e-6, burst=4)
    own = {"Authorization": f"Bearer {token}"}
    # Each on a connection of its own; a process that has not seen the file yet refuses by 401.
    wait_for(lambda: {server.post(server.row, **own).status_code for _ in range(20)} == {429})
    admitted = re.search(r'caller_requests_total{caller="shop",outcome="admitted"} (\d+)', server.get("/metrics").text)
    assert admitted
    assert admitted[1] == "4"
    assert Counter(record.caller for record in server.records() if record.caller) == {"shop": 4}
    other_paths = (f"/{SOLUTION}/model", "/metrics", "/features/planes?tailnum=N1")
    others = [requests.get(f"{server.settings.serving_url}{path}", headers=own, timeout=10) for path in other_paths]
    assert {answer.status_code for answer in others} == {401}
    assert set(requests.get(f"{server.settings.serving_url}/readyz", headers=own, timeout=10).json()) == {"status"}
    remove_caller(server.settings, "shop")
    wait_for(lambda: {server.post(server.row, **own).status_code for _ in range(8)} == {401})


def test_an_answer_is_one_packet_also_after_a_caller_waited_to_send(server: OnlineServer) -> None:
    lines = [
        f"POST /{SOLUTION}/predict HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {TOKEN}",
        f"Content-Length: {len(server.row)}",
        "",
    ]
    head = "\r\n".join(lines)
    with socket.create_connection(("127.0.0.1", server.settings.serving_port), timeout=10) as caller:
        for _ in range(3):
            caller.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert caller.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            caller.sendall(server.row)
            status, _, rest = caller.recv(65536).partition(b"\r\n")
            assert status == b"HTTP/1.1 200 OK"
            assert json.loads(rest.partition(b"\r\n\r\n")[2])["model_version"] == 1
        # Two requests at once are answered one after the other, the last one with the end of the connection.
        caller.sendall(f"{head}\r\n".encode() + server.row + f"{head}Connection: close\r\n\r\n".encode() + server.row)
        answers = b"".join(iter(lambda: caller.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == answers.count(b'"prediction_id"') == 2


def test_only_probes_need_no_token_and_tell_nothing_of_data(server: OnlineServer) -> None:
    url = server.settings.serving_url
    assert requests.get(f"{url}/livez", timeout=10).text == "ok"
    assert requests.get(f"{url}/readyz", timeout=10).json() == {"status": "ready"}
    for path in ("/metrics", f"/{SOLUTION}/model", "/openapi.json", "/docs", "/nothing"):
        refused = requests.get(url + path, timeout=10)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["status"] == 401
    assert server.post(server.row, Authorization="Bearer wrong").status_code == 401
    assert server.get("/nothing").json()["title"] == "Not Found"


def test_the_page_of_the_api_opens_with_a_link(server: OnlineServer) -> None:
    with requests.Session() as browser:
        page = browser.get(link(f"{server.settings.serving_url}/docs", TOKEN), timeout=10)
        assert (page.status_code, page.url) == (200, f"{server.settings.serving_url}/docs")
        assert browser.get(f"{server.settings.serving_url}/openapi.json", timeout=10).ok


def test_the_model_says_what_it_reads_and_gives_an_example_that_works(server: OnlineServer) -> None:
    model = server.get(f"/{SOLUTION}/model").json()
    assert (model["version"], model["contract"]["key"]["name"], model["problems"]) == (1, "flight_id", [])
    assert model["card"] == f"{server.settings.mlflow_url}/#/models/{SOLUTION}/versions/1"
    assert server.post(json.dumps(model["example"]).encode()).ok
    assert server.get("/unknown/model").status_code == 404


def test_the_description_is_made_of_the_contract(either_server: OnlineServer) -> None:
    server = either_server
    document = server.get("/openapi.json").json()
    examples = document["paths"][f"/{SOLUTION}/predict"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        assert server.post(json.dumps(example["value"]).encode()).ok
    assert "Training saw AA, B6, UA" in json.dumps(document)


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def test_the_page_of_the_api_asks_for_a_prediction_with_the_session_of_a_browser(server: OnlineServer, browser: Browser) -> None:
    foreign: list[str] = []
    complaints: list[str] = []
    page = browser.new_page(base_url=server.settings.serving_url, viewport={"width": 1300, "height": 1400})
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: foreign.append(request.url) if urlsplit(request.url).hostname != "127.0.0.1" else None)
    page.goto(link(f"{server.settings.serving_url}/docs", TOKEN))
    operation = page.locator(f"#operations-{SOLUTION}-post_{SOLUTION}_predict")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Execute", exact=True).click()
    answer = operation.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_contain_text("200", timeout=20_000)
    expect(answer).to_contain_text("prediction_id")
    assert (complaints, [address for address in foreign if not address.startswith("data:")]) == ([], [])


def test_the_online_values_of_an_entity_are_looked_up(server: OnlineServer) -> None:
    row = json.loads(server.row)
    moment = quote(row["predicted_at"])
    answer = server.get(f"/features/planes?tailnum={row['tailnum']}&at={moment}").json()
    assert (answer["flag"], answer["version"], answer["entity"]) == ("ok", 1, {"tailnum": row["tailnum"]})
    assert answer["values"]["flights"] is not None
    assert answer["event_timestamp"] < row["predicted_at"]
    # Older than the view allows.
    stale = server.get(f"/features/planes?tailnum={row['tailnum']}").json()
    assert (stale["flag"], set(stale["values"].values())) == ("stale", {None})
    assert server.get("/features/planes?tailnum=N404").json()["flag"] == "missing"
    missing = server.get("/features/planes")
    assert (missing.status_code, missing.json()["field"], missing.json()["allowed"]) == (422, "tailnum", "a text")
    unknown = server.get("/features/planes?tailnum=N1&wing=2").json()
    assert (unknown["field"], unknown["allowed"]) == ("wing", "tailnum, version, at")
    assert server.get("/features/planes?tailnum=N1&at=noon").json()["field"] == "at"
    assert server.get("/features/planes?tailnum=N1&version=x").json()["allowed"] == "a whole number"
    nowhere = server.get("/features/trains?tailnum=N1")
    assert nowhere.status_code == 404
    assert "planes version 1" in nowhere.json()["detail"]
    assert requests.get(f"{server.settings.serving_url}/features/planes?tailnum=N1", timeout=10).status_code == 401
    operation = server.get("/openapi.json").json()["paths"]["/features/planes"]["get"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["tailnum", "version", "at"]


def test_a_session_predicts_and_a_page_of_another_origin_does_not(server: OnlineServer) -> None:
    address = f"{server.settings.serving_url}/{SOLUTION}/predict"
    with requests.Session() as browser:
        browser.get(link(f"{server.settings.serving_url}/docs", TOKEN), timeout=10)
        assert browser.post(address, data=server.row, timeout=10).ok
        other = {"Origin": "http://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
        assert browser.post(address, data=server.row, headers=other, timeout=10).status_code == 403
    assert requests.post(address, data=server.row, cookies={"mlops_session": "x"}, timeout=10).status_code == 401


def test_metrics_count_what_all_processes_did(either_server: OnlineServer) -> None:
    server = either_server

    def counted() -> float:
        found = re.search(r'mlops_requests_total\{solution="flights",status="200"\} (\d+)', server.get("/metrics").text)
        return float(found.group(1)) if found else 0

    before = counted()
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status_code for answer in pool.map(server.post, [server.row] * 200)} == {200}
    assert counted() == before + 200
    text = server.get("/metrics").text
    assert {f'pid="{pid}"' in text for pid in server.workers()} == {True}


def test_no_request_notices_a_new_champion_or_a_rollback(either_server: OnlineServer) -> None:
    server = either_server
    # Workers load a version for seconds.
    versions = (2, 1) if server.get(f"/{SOLUTION}/model").json()["engine"] == "worker" else (2, 3, 2, 1)
    with load(server, callers=4) as found:
        for version in versions:
            server.promote(version)
            wait_for(lambda version=version: server.versions() == {version})
        # Later than the reports: every answer is of the version that all processes report.
        with ThreadPoolExecutor(8) as pool:
            assert {answer.json()["model_version"] for answer in pool.map(server.post, [server.row] * 50)} == {1}
    assert (set(found.statuses), found.errors) == ({200}, [])
    assert set(found.versions) == set(versions)


def test_a_recalibrated_version_answers_as_it_does_in_a_batch(either_server: OnlineServer) -> None:
    server, base = either_server, BaseVersion(version=1, method="sigmoid", parameters={"slope": 0.7, "intercept": -1.2})
    engine = server.get(f"/{SOLUTION}/model").json()["engine"]
    fitted = flights(1)[1].recalibrate(base, version=4)
    bundle = load_bundle(fitted.deploy(server.folder / "4", Signer(server.settings.signing_key_file), engine))
    before = server.post(server.row).json()
    server.promote(4)
    wait_for(lambda: server.versions() == {4})
    rows = [row.request | {"request_id": f"recalibrated{number}"} for number, row in enumerate(fitted.sample.rows)]
    answers = {answer["prediction_id"]: answer for answer in server.post(json.dumps(rows).encode()).json()}
    logged = [record for record in server.records() if record.prediction_id in answers]
    batch = bundle.score(pa.Table.from_pylist([record.features for record in logged])).to_pylist()
    online = [answers[record.prediction_id] for record in logged]
    assert [(row["score"], row["predicted_label"]) for row in online] == [(row["score"], row["predicted_label"]) for row in batch]
    assert batch[0]["score"] != before["score"]
    server.promote(1)
    wait_for(lambda: server.versions() == {1})


def test_a_bundle_that_was_altered_leaves_the_old_one_and_is_told(either_server: OnlineServer) -> None:
    server = either_server
    shutil.copytree(server.folder / "2", server.folder / "9")
    sign_record(server.folder / "9", Signer(server.settings.signing_key_file))
    (server.folder / "9" / "model.onnx").write_bytes(b"something else")
    server.promote(9)
    wait_for(lambda: all(report.models[SOLUTION].problems for report in server.reports()))
    assert server.versions() == {1}
    ready = server.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert "flights/9 does not serve as champion: BundleError" in ready.json()["problems"][0]
    assert "was changed after promotion" in server.log()
    assert server.post(server.row).json()["model_version"] == 1
    wait_for(lambda: 'mlops_model_problems{solution="flights"} 1.0' in server.get("/metrics").text)
    server.promote(1)
    wait_for(lambda: not any(report.models[SOLUTION].problems for report in server.reports()))
    shutil.rmtree(server.folder / "9")
    (server.folder / "9.json").unlink()


@pytest.mark.long
def test_processes_are_replaced_one_by_one_without_a_lost_request(server: OnlineServer) -> None:
    before = server.workers()
    with load(server, callers=4) as found:
        os.kill(server.process.pid, signal.SIGHUP)
        wait_for(lambda: len(server.workers()) == 2 and not server.workers() & before)
    assert (set(found.statuses), found.errors) == ({200}, [])
    assert found.answered > 20


def test_a_process_that_is_asked_to_end_answers_what_it_accepted_and_is_replaced(either_server: OnlineServer) -> None:
    server = either_server
    ended = min(server.workers())
    with load(server, callers=4) as found:
        os.kill(ended, signal.SIGTERM)
        wait_for(lambda: len(server.workers() - {ended}) == 2 and len(server.reports()) == 2)
    assert (set(found.statuses), found.errors) == ({200}, [])
    kept = {record.prediction_id for record in server.records()}
    assert kept >= set(found.prediction_ids)


def test_a_process_that_is_killed_comes_back_and_every_answer_is_on_disk(server: OnlineServer) -> None:
    killed = min(server.workers())
    with load(server, callers=4) as found:
        kill(killed)
        wait_for(lambda: len(server.workers() - {killed}) == 2 and len(server.reports()) == 2)
    assert set(found.statuses) == {200}
    # Nobody can answer for a process that is dead: its callers lose a connection, and no more than that.
    assert len(found.errors) <= 4
    kept = [record.prediction_id for record in server.records()]
    assert len(kept) == len(set(kept))
    assert set(kept) >= set(found.prediction_ids)
    assert f'pid="{killed}"' not in server.get("/metrics").text


def test_a_process_that_ends_while_it_is_asked_whether_it_lives_is_replaced_at_once(server: OnlineServer) -> None:
    stopped = min(server.workers())
    os.kill(stopped, signal.SIGSTOP)
    # It is asked twice a second, and would be given 30 s for the answer.
    time.sleep(1.5)
    kill(stopped)
    wait_for(lambda: len(server.workers() - {stopped}) == 2 and len(server.reports()) == 2)


@pytest.mark.long
def test_hostile_requests_never_make_the_server_fail(server: OnlineServer) -> None:
    command = [
        str(scripts_directory() / "schemathesis"), "run", f"{server.settings.serving_url}/openapi.json",
        "--header", f"Authorization: Bearer {TOKEN}", "--phases", "examples,coverage,fuzzing", "--max-examples", "60", "--seed", "1",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--continue-on-failure",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=scratch)
    assert answer.returncode == 0, answer.stdout
    assert 'status="5' not in server.get("/metrics").text
    assert server.post(server.row).ok


@pytest.mark.parametrize("ending", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_a_server_that_is_started_again_answers_meanwhile(server: OnlineServer, ending: signal.Signals) -> None:
    before = server.workers()
    with load(server, callers=4) as found:
        # While a process starts uvicorn heeds no signal.
        os.kill(min(before), signal.SIGTERM)
        wait_for(lambda: bool(server.workers() - before))
        os.kill(server.process.pid, ending)
        server.process.wait(60)
        asked = found.answered
        wait_for(lambda: found.answered > asked + 20)
        server.start()
        wait_for(lambda: len(server.workers()) == 2 and {report.pid for report in server.reports()} == server.workers())
    assert (set(found.statuses), found.errors) == ({200}, [])
    answered = set(found.prediction_ids)
    kept = [record.prediction_id for record in server.records() if record.prediction_id in answered]
    assert sorted(kept) == sorted(found.prediction_ids)


def test_processes_of_a_server_that_nobody_starts_again_do_not_outlive_the_one_that_started_them() -> None:
    home = Path(tempfile.mkdtemp(prefix="online.", dir="/tmp"))
    with OnlineServer(home, flights(1), restarted=False) as server:
        workers = server.workers()
        kill(server.process.pid)
        wait_for(lambda: not any(psutil.pid_exists(pid) for pid in workers))
    shutil.rmtree(home)
