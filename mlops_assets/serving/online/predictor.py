"""Online prediction, from the body of a request to its answer: decode, score, keep the predictions, answer. HTTP belongs to `endpoint`.

Requests that arrive while the event loop attends to one round of events are scored together: the model, the online store and the
disk are asked once for all of them.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import chain, count, groupby, islice
from operator import attrgetter
from pathlib import Path
from time import monotonic

import msgspec

from mlops_assets.online_store.store import UnknownOnlineViewError
from mlops_assets.serving.live import LiveChampions, LiveSolution, LiveSolutions, Model
from mlops_assets.serving.online.metrics import Metrics
from mlops_assets.serving.online.model_workers import WorkerError, WorkerTimeoutError
from mlops_assets.serving.online.problems import InvalidRequestError, ProblemError, retry_later
from mlops_assets.serving.online.trial import in_canary, score_challenger, score_challenger_later
from mlops_assets.serving.prediction_record import PredictionRecord, Role
from mlops_assets.serving.requests import RequestError, Row
from mlops_assets.serving.scorer import ScoredRow
from mlops_assets.serving.spool import SpoolError, SpoolWriter

_log = logging.getLogger(__name__)

BATCH_ROWS = 50
"""So many rows are scored before the event loop gets its turn, and of a longer request before others get theirs."""


class Answer(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The prediction for one row; `flags` tells by feature view how its values were found, `ok` or why they are missing.

    `score` and `predicted_label` of a classification, with the `probabilities` of `classes`, in their order, when there are more than
    two; `value` of a regression. Features in `unseen` have a category that training did not hold.
    """

    prediction_id: str
    model_version: int
    score: float | None = None
    predicted_label: int | str | None = None
    value: float | None = None
    probabilities: list[float] | None = None
    classes: list[int | str] | None = None
    unseen: list[str] | None = None
    flags: dict[str, str]


class _Request(msgspec.Struct, eq=False, kw_only=True):
    """A request that waits for its `answer`, the JSON or why there is none. `many` tells whether its rows came as an array.

    It is answered by the models that served when it arrived.
    """

    solution: LiveSolution
    champions: LiveChampions
    challenger: Model | None
    body: bytes
    received_at: datetime
    deadline: float
    rows: Sequence[Row]
    many: bool
    caller: str | None
    scored: list[ScoredRow] = []
    tried: tuple[dict[int, ScoredRow], set[int]] | None = None
    answer: bytes | Exception | None = None


class Predictor:
    """Answers for every solution that this process serves. `durable`, its answers survive a power failure."""

    def __init__(self, solutions: LiveSolutions, spool_directory: Path, metrics: Metrics, *, durable: bool):
        self.solutions = solutions
        self._spool_directory, self._metrics, self._durable = spool_directory, metrics, durable
        self._spools: dict[str, SpoolWriter] = {}
        self._waiting: deque[_Request] = deque()
        # Requests without an id of their own get one that no other process gives: cheaper than a random one each.
        self._process, self._numbers = secrets.token_hex(8), count(1)

    def solution(self, name: str) -> LiveSolution:
        """A solution that answers online. Raises ProblemError (404) for any other name."""
        solution = self.solutions.get(name)
        if solution is None or not solution.options.online:
            online = ", ".join(sorted(other for other, live in self.solutions.items() if live.options.online)) or "none"
            raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no solution {name!r} online; there are: {online}.", {})
        return solution

    def champions(self, solution: LiveSolution) -> LiveChampions:
        """The models that answer for `solution`. Raises ProblemError (503) while there is none."""
        champions = solution.champions
        if champions is None:
            detail = "; ".join(solution.problems) or f"{solution.name} has no champion yet: promote a version."
            raise retry_later(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        return champions

    async def predict(self, name: str, body: bytes, deadline: float, *, began: float, alone: bool, caller: str | None) -> bytes:
        """The JSON answer for the row or the rows in `body`, whose predictions are in the spool by then.

        `alone` tells that no other request has arrived, for which it would have to wait. `caller` asks, None for the operator.

        Raises ProblemError: for a request that is not valid, and when `deadline` (of `time.monotonic`) passes before all is scored. Workers
        have the time limit of the solution, from when the request `began`.
        """
        solution = self.solution(name)
        champions, challenger = self.champions(solution), solution.challenger.model
        received_at = datetime.now(UTC)
        try:
            decoded = champions.default.decoder.decode(body, received_at)
        except RequestError as error:
            raise InvalidRequestError(error) from error
        rows = [decoded] if isinstance(decoded, Row) else decoded
        request = _Request(
            solution=solution,
            champions=champions,
            challenger=challenger,
            body=body,
            received_at=received_at,
            deadline=deadline,
            rows=rows,
            many=rows is decoded,
            caller=caller,
        )
        if champions.has_workers or (challenger is not None and challenger.remote is not None):
            request.deadline = began + solution.options.worker.timeout_seconds
            await self._ask_workers(request)
        elif alone:
            self._advance(champions, [request])
        else:
            self._waiting.append(request)
        while request.answer is None:
            # Requests that arrived together all wait by now; the first one to go on scores those of the others too.
            await asyncio.sleep(0)
            if request.answer is None:
                self._score_batch()
        if isinstance(request.answer, Exception):
            raise request.answer
        return request.answer

    def close(self) -> None:
        """Give the segments of the spools to the shipper."""
        for spool in self._spools.values():
            spool.close()

    async def _ask_workers(self, request: _Request) -> None:
        """Score the rows of a request of which workers score some, while others go on, and answer it."""
        left = request.deadline - monotonic()
        try:
            request.scored = await request.champions.score_later(request.rows, left)
            if request.challenger is not None:
                # The champion has answered: its answer is not given up for the challenger's.
                request.tried = await self._try_later(request, request.challenger, (request.deadline - monotonic()) / 2)
        except TimeoutError:
            detail = f"The model did not answer within {request.solution.options.worker.timeout_seconds:g} s."
            request.answer = retry_later(HTTPStatus.GATEWAY_TIMEOUT, detail)
        except Exception as error:  # it becomes the answer of the request
            request.answer = _explain(error, request)
        else:
            self._answer(request.solution.name, [request])

    def _score_batch(self) -> None:
        """Advance the requests that have waited longest, as many of them as have the rows of a batch."""
        batch: list[_Request] = []
        room = BATCH_ROWS
        while self._waiting and room > 0:
            request = self._waiting.popleft()
            if monotonic() > request.deadline:
                request.answer = retry_later(HTTPStatus.SERVICE_UNAVAILABLE, "The server is too busy to answer in time.")
            else:
                batch.append(request)
                room -= len(request.rows) - len(request.scored)
        for champions, together in groupby(batch, key=attrgetter("champions")):
            self._advance(champions, list(together))

    def _advance(self, champions: LiveChampions, requests: Sequence[_Request]) -> None:
        """Score the next rows of `requests`, and answer those that are complete. The others wait again, behind the rest."""
        self._score(champions, requests)
        complete: list[_Request] = []
        for request in requests:
            if request.answer is None:
                (complete if len(request.scored) == len(request.rows) else self._waiting).append(request)
        if complete:
            self._answer(complete[0].solution.name, complete)

    def _score(self, champions: LiveChampions, requests: Sequence[_Request]) -> None:
        """Score the next rows of each request. One that cannot be scored fails alone."""
        parts = [request.rows[len(request.scored) : len(request.scored) + BATCH_ROWS] for request in requests]
        try:
            scored = iter(champions.score(parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))))
        except Exception as error:  # it becomes the answer of the request that causes it
            if len(requests) == 1:
                requests[0].answer = _explain(error, requests[0])
                return
            for request in requests:
                self._score(champions, [request])
        else:
            for request, part in zip(requests, parts, strict=True):
                request.scored += islice(scored, len(part))

    def _answer(self, name: str, requests: Sequence[_Request]) -> None:
        """Keep the predictions of `requests`, which are complete, and answer them."""
        try:
            recorded = [self._records(name, request) for request in requests]
            self._keep(name, [record for kept, _ in recorded for record in kept])
            for request, (_, answered) in zip(requests, recorded, strict=True):
                answers = [_answer(record) for record in answered]
                request.answer = msgspec.json.encode(answers if request.many else answers[0])
        except Exception as error:  # raised where each request waits for its answer
            for request in requests:
                request.answer = error

    def _records(self, name: str, request: _Request) -> tuple[list[PredictionRecord], list[PredictionRecord]]:
        """All predictions for a request, those of the challenger at the end, and the one that answers each row."""
        tried, by_challenger = self._try(request) if request.tried is None else request.tried
        identifiers = [row.request_id or f"{self._process}-{next(self._numbers)}" for row in request.rows]

        def record(position: int, scored_row: ScoredRow, role: Role) -> PredictionRecord:
            answered = (position in by_challenger) == (role == "challenger")
            return scored_row.record(
                solution=name,
                channel="online",
                role=role,
                answered=answered,
                request_id=identifiers[position],
                caller=request.caller,
            )

        records = [record(position, scored_row, "champion") for position, scored_row in enumerate(request.scored)]
        if not tried:
            return records, records
        others = {position: record(position, scored_row, "challenger") for position, scored_row in tried.items()}
        answered = [others[at] if at in by_challenger else champion_record for at, champion_record in enumerate(records)]
        return [*records, *others.values()], answered

    def _try(self, request: _Request) -> tuple[dict[int, ScoredRow], set[int]]:
        """Score the rows that the challenger gets. Returns them by position, and the positions of those that it answers."""
        if request.challenger is None:
            return {}, set()
        canary = _canary(request)
        tried = score_challenger(request.challenger, request.solution.options, request.body, request.received_at, canary)
        return self._tried(request, tried, canary)

    async def _try_later(self, request: _Request, challenger: Model, seconds: float) -> tuple[dict[int, ScoredRow], set[int]]:
        """See `_try`."""
        canary = _canary(request)
        options = request.solution.options
        tried = await score_challenger_later(challenger, options, request.body, request.received_at, canary, seconds)
        return self._tried(request, tried, canary)

    def _tried(
        self, request: _Request, tried: dict[int, ScoredRow] | None, canary: Sequence[bool]
    ) -> tuple[dict[int, ScoredRow], set[int]]:
        if tried is None:
            self._metrics.challenger_failures.labels(request.solution.name).inc()
            return {}, set()
        return tried, {position for position in tried if canary[position]}

    def _keep(self, name: str, records: Sequence[PredictionRecord]) -> None:
        """Write the predictions to the spool. Raises ProblemError (503) when they cannot be kept: they must not be answered then."""
        if (spool := self._spools.get(name)) is None:
            spool = self._spools[name] = SpoolWriter(self._spool_directory / name, durable=self._durable)
        try:
            spool.append(*records)
        except SpoolError as error:
            _log.error("%s", error)
            raise retry_later(HTTPStatus.SERVICE_UNAVAILABLE, "The prediction cannot be kept now.") from error
        asyncio.get_running_loop().call_soon(self._metrics.count, records)


def _canary(request: _Request) -> list[bool]:
    """For each row whether the challenger answers it."""
    return [in_canary(request.solution.options, row.entity, row.key) for row in request.scored]


def _explain(error: Exception, request: _Request) -> Exception:
    """Translate an error of the rows that were to be scored next into the one for the caller."""
    match error:
        case RequestError():
            return InvalidRequestError(error.at(len(request.scored) + (error.row or 0) if len(request.rows) > 1 else None))
        case WorkerTimeoutError():
            return retry_later(HTTPStatus.GATEWAY_TIMEOUT, str(error))
        case UnknownOnlineViewError() | WorkerError():
            return retry_later(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
    return error


def _answer(record: PredictionRecord) -> Answer:
    outputs = record.outputs
    return Answer(
        prediction_id=record.prediction_id,
        model_version=record.model_version,
        score=outputs.score,
        predicted_label=outputs.predicted_label,
        value=outputs.value,
        probabilities=outputs.probabilities,
        classes=list(record.classes) or None,
        unseen=list(record.unseen) or None,
        flags={name: view.flag for name, view in record.views.items()},
    )
