"""The online server's HTTP interface: a LitServe application whose small models run in the process that accepted the connection.

A queue and another process between the two cost thirty times what such a model does (docs/adr/0012-online-server.md). Slow models, and those
without an ONNX form, run in workers of LitServe: `model_workers`.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import litserve
import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from mlops_assets.access.admission import Admission
from mlops_assets.access.credentials import is_authorized, serving_token
from mlops_assets.access.environment_banner import EnvironmentBanner
from mlops_assets.access.guard import AccessGuard
from mlops_assets.access.identities import Identities
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.environment_files import environment_name
from mlops_assets.core.named_lines import name_lines
from mlops_assets.core.settings import Settings
from mlops_assets.online_store.store import open_online_store
from mlops_assets.serving.bundle_store import open_followed_store
from mlops_assets.serving.live import LiveSolutions
from mlops_assets.serving.online import documentation
from mlops_assets.serving.online.endpoint import MAXIMUM_BODY_BYTES, PredictEndpoint, Receive, Scope, Send
from mlops_assets.serving.online.feature_lookup import look_up
from mlops_assets.serving.online.hot_restart import ListenerOffer, Succession
from mlops_assets.serving.online.metrics import Metrics
from mlops_assets.serving.online.model_workers import WorkerModel
from mlops_assets.serving.online.openapi import describe
from mlops_assets.serving.online.predictor import Predictor
from mlops_assets.serving.online.problems import CONTENT_TYPE, ProblemError
from mlops_assets.serving.reports import follow_links, served_models

DRAIN_SECONDS = 1.0
"""Asked to end, a process answers so much longer, and asks every caller to connect anew, before it closes idle connections."""

WORKER_END_SECONDS = 5.0
"""So long a worker may take for its last answers."""

COLLECT_EVERY = 20_000
"""Objects that a process makes and keeps between two garbage collections."""

_PROBES = ("/livez", "/readyz")

_log = logging.getLogger(__name__)


class PredictionAPI(litserve.LitAPI):
    """All solutions of this machine; `setup` loads their champions."""

    def __init__(self, settings: Settings):
        super().__init__(api_path="/{solution}/predict")
        self._settings = settings
        self.token, self.admission = serving_token(settings), Admission(settings)

    def setup(self, device: str) -> None:
        """Load what serves now. Called in the process that answers: connections must not cross a fork."""
        self.metrics = Metrics()
        signer = Signer(self._settings.signing_key_file)
        self.online_store = open_online_store(self._settings)
        self.solutions = LiveSolutions(open_followed_store(self._settings), self.online_store, signer, WorkerModel)
        durable = self._settings.durability == "fsync"
        self.predictor = Predictor(self.solutions, self._settings.spool_directory, self.metrics, durable=durable)
        self.solutions.refresh()
        self.admission.refresh()
        # What is loaded by now stays: the garbage collector need not look at it again, nor at every few requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_EVERY)


class OnlineServer(litserve.LitServer):
    """LitServe, with workers for the models that need them. An ASGI application: `server` starts the processes that run it."""

    def __init__(self, settings: Settings, *, restarted: bool):
        self.api = PredictionAPI(settings)
        self._settings, self._restarted = settings, restarted
        self._stopping = threading.Event()
        super().__init__(self.api, accelerator="cpu", max_payload_size=MAXIMUM_BODY_BYTES, disable_openapi_url=True)
        self._pages = EnvironmentBanner(self._answer, environment_name())
        self._guard = AccessGuard(
            self._behind_guard,
            name="The online server",
            identities=Identities("The online server", lambda: self.api.token, list),
            listening=settings.listening,
            command="mlops open serving",
            file=settings.serving_token_file.name,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Predictions go straight to their endpoint, everything else through the framework.

        Probes are open. Whatever tells of data takes the token, under any name of this machine, or a session in a browser.
        """
        if scope["type"] == "http" and PredictEndpoint.serves(scope["path"]) and not _may_have_a_session(scope["headers"]):
            await self.endpoint(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer whatever is no prediction of a program."""
        if scope["type"] != "http" or scope["path"] in _PROBES or _has_token(scope["headers"], self.api.token):
            await self.app(scope, receive, send)
        else:
            await self._guard(scope, receive, send)

    async def _behind_guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that passed the guard. The page of the API asks for predictions too, with the cookie of its session."""
        if scope["type"] == "http" and PredictEndpoint.serves(scope["path"]):
            headers = [*scope["headers"], (b"authorization", f"Bearer {self.api.token}".encode())]
            await self.endpoint({**scope, "headers": headers}, receive, send)
        else:
            await self.app(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Load the models, follow the links, drain on SIGTERM; at the end give the spools to the shipper."""
        self.api.setup("cpu")
        self.endpoint = PredictEndpoint(self.api.predictor, self.api.token, self.api.admission, self.api.metrics)
        follower = threading.Thread(target=self._follow, name="follower")
        follower.start()
        offer = None
        exit_handler: Any = signal.getsignal(signal.SIGTERM)
        # In a test there is no uvicorn.
        if isinstance(server := getattr(exit_handler, "__self__", None), uvicorn.Server):
            self.endpoint.tasks = server.server_state.tasks
            if self._restarted:
                directory = self._settings.server_reports_directory
                offer = ListenerOffer(directory, lambda: server.servers[0].sockets[0].fileno())
            self._drain_before_exit(server, offer)
        try:
            yield
        finally:
            self._stopping.set()
            await asyncio.to_thread(follower.join)
            self.api.predictor.close()
            await asyncio.to_thread(self.api.solutions.close, WORKER_END_SECONDS)

    def register_endpoints(self) -> None:
        """The routes beside the predictions. Called by LitServe, in place of its own."""
        self.app.add_api_route("/livez", self._alive, methods=["GET"])
        self.app.add_api_route("/readyz", self._ready, methods=["GET"])
        self.app.add_api_route("/openapi.json", self._openapi, methods=["GET"])
        for path in documentation.PATHS:
            self.app.add_api_route(path, self._documentation, methods=["GET"])
        self.app.add_api_route("/metrics", self._metrics, methods=["GET"])
        self.app.add_api_route("/features/{view}", self._features, methods=["GET"])
        self.app.add_api_route("/{solution}/model", self._model, methods=["GET"])
        self.app.add_exception_handler(HTTPException, _problem)

    async def _alive(self) -> Response:
        return Response("ok", media_type="text/plain")

    async def _ready(self, request: Request) -> Response:
        """200 unless the process drains. A solution whose newest bundle cannot serve is told, not a reason to send nobody here.

        Without the token the status alone is told.
        """
        draining = self.endpoint.draining
        state: dict[str, Any] = {"status": "draining" if draining else "ready"}
        if _has_token(request.headers.raw, self.api.token):
            models = served_models(self.api.solutions)
            problems = [problem for model in models.values() for problem in model.problems]
            state |= {"pid": os.getpid(), "problems": problems, "models": models}
        return _json(state, HTTPStatus.SERVICE_UNAVAILABLE if draining else HTTPStatus.OK)

    async def _openapi(self) -> Response:
        return _json(describe(self.api.solutions), HTTPStatus.OK)

    async def _documentation(self, request: Request) -> Response:
        content, media_type = documentation.read_file(request.url.path)
        return Response(content, media_type=media_type, headers=dict(documentation.HEADERS))

    async def _metrics(self) -> Response:
        return Response(await asyncio.to_thread(self.api.metrics.exposition), media_type="text/plain; version=0.0.4")

    async def _features(self, view: str, request: Request) -> Response:
        try:
            answer = look_up(self.api.online_store, self.api.solutions, view, request.query_params)
        except ProblemError as problem:
            return Response(problem.body(), problem.status, headers=dict(problem.headers), media_type=CONTENT_TYPE)
        return _json(answer, HTTPStatus.OK)

    async def _model(self, solution: str) -> Response:
        try:
            live_solution = self.api.predictor.solution(solution)
            champions = self.api.predictor.champions(live_solution)
        except ProblemError as problem:
            return Response(problem.body(), problem.status, headers=dict(problem.headers), media_type=CONTENT_TYPE)
        champion, challenger = champions.default, live_solution.challenger.model
        return _json(
            {
                "solution": solution,
                "version": champion.contract.version,
                "since": champion.since,
                "engine": champion.engine.engine,
                "engine_reason": champion.engine.reason,
                "card": f"{self._settings.mlflow_url}/#/models/{solution}/versions/{champion.contract.version}",
                "segments": {
                    model.contract.segment.value: model.contract.version for model in champions.segments if model.contract.segment
                },
                "challenger": challenger.contract.version if challenger else None,
                "serving": live_solution.options.model_dump(),
                "problems": live_solution.problems,
                "contract": champion.contract.model_dump(mode="json"),
                "example": champion.scorer.bundle.sample.rows[-1].request,
            },
            HTTPStatus.OK,
        )

    def _follow(self) -> None:
        """Follow the links until the server stops. When its parent is gone, or it cannot go on, the process ends and others answer."""
        directory, parent = self._settings.server_reports_directory, multiprocessing.parent_process()
        successors = self._settings.serving_processes if self._restarted else 0
        succession = Succession(directory, lambda: parent is not None and not parent.is_alive(), successors)

        def looked() -> None:
            self.api.admission.refresh()
            self.api.metrics.show_state(self.api.solutions, self.endpoint.in_flight)
            if succession.is_over():
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            follow_links(self.api.solutions, directory, "online", stopping=self._stopping, changed=looked)
        except Exception:
            _log.exception("The links are not followed any more: this process ends.")
            os.kill(os.getpid(), signal.SIGTERM)

    def _drain_before_exit(self, server: uvicorn.Server, offer: ListenerOffer | None) -> None:
        """On SIGTERM stop accepting, ask every caller to connect anew, and only then let uvicorn close what is idle.

        It would close idle connections at once: a request that is on its way on one of them would be lost.
        """
        loop = asyncio.get_running_loop()

        def exit_later() -> None:
            if self.endpoint.draining:
                return
            self.endpoint.draining = True
            if offer is not None:
                offer.withdraw()
            for listener in server.servers:
                listener.close()
            loop.call_later(DRAIN_SECONDS, server.handle_exit, signal.SIGTERM, None)

        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(exit_later))


def create() -> OnlineServer:
    """The application of this installation, for uvicorn."""
    return _create(restarted=False)


def create_restarted() -> OnlineServer:
    """The same, of a server that is started again whenever it ends."""
    return _create(restarted=True)


def _create(*, restarted: bool) -> OnlineServer:
    name_lines()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return OnlineServer(Settings.from_environment(), restarted=restarted)


def _may_have_a_session(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser may have sent the request: it has cookies, and no token."""
    names = {name for name, _ in headers}
    return b"cookie" in names and b"authorization" not in names


def _has_token(headers: Iterable[tuple[bytes, bytes]], token: str) -> bool:
    return is_authorized(next((value for name, value in headers if name == b"authorization"), None), token)


def _json(content: Any, status: HTTPStatus) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _problem(request: Request, error: Exception) -> Response:
    """Errors of the framework, such as an unknown path, in the form of all others."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    problem = ProblemError(HTTPStatus(error.status_code), str(error.detail), headers)
    return Response(problem.body(), problem.status, headers=headers, media_type=CONTENT_TYPE)
