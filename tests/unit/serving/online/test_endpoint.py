"""The HTTP interface, called as an ASGI application: guards, answers, errors, and what is kept of every prediction."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bundles import NOON, Fitted, fit_flights, push_planes

from mlops_assets.access.admission import Admission
from mlops_assets.access.callers import ALL_SOLUTIONS, add_caller, remove_caller, rotate_token
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.schema.solution import Serving
from mlops_assets.serving.active import CHALLENGER_LINK, CHAMPION_LINK, activate, write_options
from mlops_assets.serving.folder_store import FolderStore
from mlops_assets.serving.live import LiveSolutions
from mlops_assets.serving.online import endpoint as endpoint_module
from mlops_assets.serving.online.endpoint import MAXIMUM_BODY_BYTES, MAXIMUM_IN_FLIGHT, PredictEndpoint
from mlops_assets.serving.online.metrics import Metrics
from mlops_assets.serving.online.predictor import Predictor
from mlops_assets.serving.online.trial import in_canary
from mlops_assets.serving.prediction_record import PredictionRecord, decode_record
from mlops_assets.serving.requests import RequestError, Row
from mlops_assets.serving.scorer import ScoredRow
from mlops_assets.serving.spool import segments

TOKEN = "correct horse"
ROW = {"flight_id": "f1", "tailnum": "N1", "carrier": "AA", "distance": 1500, "predicted_at": NOON.isoformat()}


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    body: Any


class Server:
    """The endpoint with its models, spool and metrics, on real files."""

    def __init__(self, home: Path):
        store = LmdbStore(home / "store")
        push_planes(store)
        self.folder, self.spool = home / "serving" / "flights", home / "spool"
        self.metrics, self.signer = Metrics(), Signer(home / "signing_key")
        self.settings = Settings(home=home)
        self.admission = Admission(self.settings)
        self.solutions = LiveSolutions(FolderStore(home / "serving"), store, self.signer)
        self.predictor = Predictor(self.solutions, self.spool, self.metrics, durable=True)
        self.endpoint = PredictEndpoint(self.predictor, TOKEN, self.admission, self.metrics)

    def serve(self, fitted: Fitted, link: str) -> None:
        path = self.folder / str(fitted.contract.version)
        if not path.exists():
            fitted.deploy(path, self.signer)
        activate(path, link)
        self.solutions.refresh()

    def records(self) -> list[PredictionRecord]:
        lines = [line for segment in segments(self.spool / "flights") for line in segment.read(1 << 20)]
        return [decode_record(line.payload) for line in lines if line.payload is not None]

    async def send(self, body: bytes | Any, path: str = "/flights/predict", method: str = "POST", token: str = TOKEN) -> Answered:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = [(b"authorization", b"Bearer " + token.encode()), (b"content-length", b"%d" % len(content))]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.endpoint({"type": "http", "path": path, "method": method, "headers": headers}, receive, send)
        return Answered(
            sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, json.loads(sent[1]["body"])
        )

    def post(self, body: bytes | Any, **how: Any) -> Answered:
        return asyncio.run(self.send(body, **how))

    def counted(self) -> str:
        return self.metrics.exposition().decode()


@pytest.fixture(scope="module")
def versions() -> dict[int, Fitted]:
    return {version: fit_flights("multiclass_classification", version=version, seed=version) for version in (1, 2)}


@pytest.fixture
def server(tmp_path: Path, versions: dict[int, Fitted]) -> Iterator[Server]:
    server = Server(tmp_path)
    server.serve(versions[1], CHAMPION_LINK)
    yield server
    server.predictor.close()


def test_a_prediction_is_answered_and_kept(server: Server) -> None:
    answered = server.post(ROW | {"request_id": "r 7"})
    assert (answered.status, answered.headers["content-type"]) == (200, "application/json")
    body = answered.body
    assert (body["prediction_id"], body["model_version"], body["flags"]) == ("flights:online:r 7", 1, {"planes": "ok"})
    assert body["predicted_label"] in ("low", "middle", "high")
    assert body["score"] == max(body["probabilities"])
    [record] = server.records()
    assert (record.prediction_id, record.outputs.score, record.answered) == (body["prediction_id"], body["score"], True)
    assert (record.channel, record.role, record.key, record.entity) == ("online", "champion", "f1", {"tailnum": "N1"})


def test_many_rows_are_answered_in_their_order_with_ids_of_their_own(server: Server) -> None:
    rows = [ROW | {"flight_id": f"f{number}", "distance": number} for number in range(120)]
    answers = server.post(rows).body
    assert len({answer["prediction_id"] for answer in answers}) == 120
    records = {record.prediction_id: record for record in server.records()}
    assert [records[answer["prediction_id"]].key for answer in answers] == [row["flight_id"] for row in rows]
    assert [server.post(row).body["score"] for row in rows[:3]] == pytest.approx([answer["score"] for answer in answers[:3]])


@pytest.mark.parametrize(
    ("how", "status", "text"),
    [
        ({"token": "wrong"}, 401, "Give the token"),
        ({"token": "correct horsf"}, 401, "Give the token"),
        ({"method": "GET"}, 405, "with POST"),
        ({"path": "/planes/predict"}, 404, "There is no solution 'planes' online; there are: flights."),
        ({"body": b"{"}, 400, "not JSON"),
        ({"body": b" " * (MAXIMUM_BODY_BYTES + 1)}, 413, "send fewer rows"),
        (
            {"body": [ROW, ROW | {"distance": "far"}]},
            422,
            "row 1.distance: Expected int | null, got str; allowed: a whole number",
        ),
    ],
)
def test_what_is_wrong_is_said(server: Server, how: dict[str, Any], status: int, text: str) -> None:
    answered = server.post(**({"body": ROW} | how))
    assert (answered.status, answered.headers["content-type"]) == (status, "application/problem+json")
    assert answered.body["status"] == status
    assert text in answered.body["detail"]
    assert server.records() == []


def test_a_field_that_is_wrong_is_told_apart(server: Server) -> None:
    body = server.post([ROW, ROW | {"distance": "far"}]).body
    assert (body["row"], body["field"], body["problem"]) == (1, "distance", "Expected int | null, got str")


def test_without_a_champion_the_caller_is_asked_to_come_back(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.folder.mkdir(parents=True)
    server.solutions.refresh()
    answered = server.post(ROW)
    assert (answered.status, answered.headers["retry-after"]) == (503, "1")
    assert "promote a version" in answered.body["detail"]


def test_a_solution_that_does_not_answer_online_is_none(server: Server) -> None:
    write_options(server.folder, Serving(online=False))
    server.solutions.refresh()
    assert server.post(ROW).status == 404


def test_a_prediction_that_cannot_be_kept_is_not_answered(server: Server) -> None:
    server.spool.write_text("no folder")
    answered = server.post(ROW)
    assert (answered.status, answered.body["detail"]) == (503, "The prediction cannot be kept now.")


def test_a_fault_of_the_server_is_no_secret_of_the_caller(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(server.solutions["flights"].champions.default.scorer, "score", fail)  # type: ignore[union-attr]
    answered = server.post(ROW)
    assert answered.status == 500
    assert "swordfish" not in json.dumps(answered.body)
    assert server.endpoint.in_flight == 0


def test_more_requests_than_can_be_held_are_sent_away(server: Server) -> None:
    async def burst() -> list[Answered]:
        return await asyncio.gather(*(server.send(ROW) for _ in range(MAXIMUM_IN_FLIGHT + 5)))

    answers = asyncio.run(burst())
    assert sorted({answer.status for answer in answers}) == [200, 429]
    refused = [answer for answer in answers if answer.status == 429]
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert len(server.records()) == len(answers) - len(refused) >= MAXIMUM_IN_FLIGHT
    assert server.endpoint.in_flight == 0


def scored_rows(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows the model is given at once, from now on; a row with distance 13 fails."""
    champions, numbers = server.solutions["flights"].champions, []
    assert champions is not None
    score = champions.score

    def counted(rows: Sequence[Row]) -> list[ScoredRow]:
        numbers.append(len(rows))
        for number, row in enumerate(rows):
            if row.columns["distance"] == 13:
                raise RequestError(row=number, field="distance", problem="is unlucky", allowed="others")
        return score(rows)

    monkeypatch.setattr(champions, "score", counted)
    return numbers


def test_requests_that_arrive_together_are_scored_together_and_fail_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = scored_rows(server, monkeypatch)
    alone = [server.post(ROW | {"distance": distance}).body for distance in (1, 2, 3)]

    async def together(*bodies: Any) -> list[Answered]:
        return await asyncio.gather(*(server.send(body) for body in bodies))

    bodies = [ROW | {"distance": distance} for distance in (1, 2, 3)]
    answers = asyncio.run(together(*bodies))
    assert [answer.body["probabilities"] for answer in answers] == [pytest.approx(answer["probabilities"]) for answer in alone]
    assert numbers == [1, 1, 1, 3]
    answers = asyncio.run(together(bodies[0], ROW | {"distance": 13}, [bodies[1], ROW | {"distance": 13}], bodies[2]))
    assert [answer.status for answer in answers] == [200, 422, 422, 200]
    assert [answer.body.get("row") for answer in answers] == [None, None, 1, None]
    assert len({record.prediction_id for record in server.records()}) == len(server.records()) == 8


def test_a_long_request_lets_others_go_first(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, finished = scored_rows(server, monkeypatch), []

    async def send(name: str, body: Any) -> None:
        assert (await server.send(body)).status == 200
        finished.append(name)

    async def both() -> None:
        await asyncio.gather(send("long", [ROW] * 120), send("short", ROW))

    asyncio.run(both())
    assert finished == ["short", "long"]
    assert numbers == [50, 51, 20]


def test_a_request_that_is_alone_does_not_wait_for_others(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def turns() -> int:
        """How often others get their turn until the answer."""
        count, task = 0, asyncio.create_task(server.send(ROW))
        while not task.done():
            await asyncio.sleep(0)
            count += 1
        return count

    unknown = asyncio.run(turns())
    server.endpoint.tasks = {"itself"}
    assert asyncio.run(turns()) < unknown
    server.endpoint.tasks = {"itself", "another"}
    assert asyncio.run(turns()) == unknown


def test_a_body_that_does_not_arrive_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "TIME_LIMIT_SECONDS", 0.05)

    async def slow() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.03)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"authorization", b"Bearer " + TOKEN.encode())]
        await server.endpoint({"type": "http", "path": "/flights/predict", "method": "POST", "headers": headers}, receive, send)
        return sent

    assert asyncio.run(slow())[0]["status"] == 408


def test_what_waits_too_long_is_not_scored(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "monotonic", lambda: 0.0)
    assert server.post(ROW).status == 503
    assert server.records() == []


def test_while_draining_callers_are_asked_to_connect_anew(server: Server) -> None:
    assert "connection" not in server.post(ROW).headers
    server.endpoint.draining = True
    answered = server.post(ROW)
    assert (answered.status, answered.headers["connection"]) == (200, "close")


def test_in_the_shadow_the_challenger_is_kept_and_not_answered(server: Server, versions: dict[int, Fitted]) -> None:
    write_options(server.folder, Serving(shadow=True))
    server.serve(versions[2], CHALLENGER_LINK)
    body = server.post(ROW | {"request_id": "r"}).body
    champion, challenger = server.records()
    assert (body["prediction_id"], body["model_version"]) == ("flights:online:r", 1)
    assert (champion.role, champion.answered, champion.model_version) == ("champion", True, 1)
    assert (challenger.role, challenger.answered, challenger.model_version) == ("challenger", False, 2)
    assert challenger.prediction_id == "flights:online:r:challenger"
    assert challenger.features == champion.features
    assert 'mlops_predictions_total{model_version="2",role="challenger",solution="flights"} 1.0' in server.counted()


def test_a_canary_answers_its_share_of_the_entities_and_always_the_same(server: Server, versions: dict[int, Fitted]) -> None:
    write_options(server.folder, Serving(canary=0.3))
    server.serve(versions[2], CHALLENGER_LINK)
    rows = [ROW | {"tailnum": f"N{number}"} for number in range(500)]
    first, second = server.post(rows).body, server.post(rows[::-1]).body[::-1]
    chosen = [answer["model_version"] for answer in first]
    assert chosen == [answer["model_version"] for answer in second]
    assert 0.2 < chosen.count(2) / 500 < 0.4
    records = server.records()
    assert sum(record.answered for record in records) == 1000
    answered = {record.prediction_id: record.model_version for record in records if record.answered}
    assert answered == {answer["prediction_id"]: answer["model_version"] for answer in [*first, *second]}


def test_a_challenger_that_fails_leaves_the_answer_to_the_champion(
    server: Server, versions: dict[int, Fitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_options(server.folder, Serving(canary=1.0))
    server.serve(versions[2], CHALLENGER_LINK)
    monkeypatch.delattr(server.solutions["flights"].challenger.model.scorer, "_schema")  # type: ignore[union-attr]
    assert (server.post(ROW).body["model_version"], len(server.records())) == (1, 1)
    assert 'mlops_challenger_failures_total{solution="flights"} 1.0' in server.counted()


def test_the_side_of_an_entity_is_fixed_and_without_one_the_key_decides() -> None:
    options = Serving(canary=0.5)
    assert {in_canary(options, {}, number) for number in range(50)} == {True, False}
    assert in_canary(options, {"a": 1}, "x") == in_canary(options, {"a": 1}, "y")
    assert not in_canary(Serving(canary=0), {"a": 1}, "x")
    assert in_canary(Serving(canary=1), {"a": 1}, "x")


def test_everything_is_counted(server: Server) -> None:
    for body in (ROW, ROW | {"tailnum": "N9"}, {}):
        server.post(body)
    server.post(ROW, path="/invented by a caller/predict")
    server.metrics.show_state(server.solutions, server.endpoint.in_flight)
    counted = server.counted()
    for line in (
        'mlops_requests_total{solution="flights",status="200"} 2.0',
        'mlops_requests_total{solution="flights",status="422"} 1.0',
        'mlops_requests_total{solution="",status="404"} 1.0',
        'mlops_flagged_features_total{flag="missing",solution="flights",view="planes"} 1.0',
        'mlops_request_seconds_count{solution="flights"} 3.0',
        'mlops_model_version{role="champion",solution="flights"} 1.0',
        "mlops_requests_in_flight 0.0",
    ):
        assert line in counted
    assert "invented" not in counted


def test_a_caller_asks_its_solutions_with_a_token_of_its_own(server: Server) -> None:
    token = add_caller(server.settings, "shop", ("flights",), requests_per_second=None, burst=1)
    other = add_caller(server.settings, "other", ("another",), requests_per_second=None, burst=1)
    assert server.post(ROW, token=token).status == 401
    server.admission.refresh()
    assert server.post(ROW, token=token).status == 200
    refused, unknown = server.post(ROW, token=other), server.post(ROW, token=other, path="/nothing/predict")
    assert (refused.status, unknown.status) == (403, 403)
    assert refused.body["detail"] == "The caller other may not ask 'flights'."
    assert server.post(ROW, token=token + "x").status == 401
    assert 'mlops_caller_requests_total{caller="shop",outcome="admitted"} 1.0' in server.counted()
    assert 'mlops_caller_requests_total{caller="other",outcome="forbidden"} 2.0' in server.counted()


def test_a_new_token_is_taken_beside_the_old_one_until_that_ends(server: Server) -> None:
    old = add_caller(server.settings, "shop", (ALL_SOLUTIONS,), requests_per_second=None, burst=1)
    new, _ = rotate_token(server.settings, "shop", timedelta(hours=1))
    server.admission.refresh()
    assert (server.post(ROW, token=old).status, server.post(ROW, token=new).status) == (200, 200)
    newest, _ = rotate_token(server.settings, "shop", timedelta())
    server.admission.refresh()
    assert [server.post(ROW, token=token).status for token in (old, new, newest)] == [401, 401, 200]
    remove_caller(server.settings, "shop")
    server.admission.refresh()
    assert server.post(ROW, token=newest).status == 401


def test_a_caller_that_asks_too_often_is_told_when_to_come_again(server: Server) -> None:
    token = add_caller(server.settings, "shop", (ALL_SOLUTIONS,), requests_per_second=0.01, burst=2)
    server.admission.refresh()
    answers = [server.post(ROW, token=token) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "100"
    assert answers[2].body["detail"] == "The caller shop has 0.01 requests a second, 2 at once."
    # Nobody else waits for it.
    assert server.post(ROW).status == 200


def test_a_file_of_callers_that_cannot_be_read_admits_nobody(server: Server) -> None:
    token = add_caller(server.settings, "shop", (ALL_SOLUTIONS,), requests_per_second=None, burst=1)
    server.admission.refresh()
    server.settings.callers_file.write_text("[{")
    server.admission.refresh()
    assert server.post(ROW, token=token).status == 401
    assert server.post(ROW).status == 200
