"""From the body of a request to its answer: decode, score, keep the predictions, answer. HTTP belongs to `endpoint`."""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from time import monotonic

import msgspec

from mlops_assets.resources.online_store.store import UnknownOnlineViewError
from mlops_assets.serving.live import LiveChampions, LiveSolution, LiveSolutions, Model
from mlops_assets.serving.online.metrics import Metrics
from mlops_assets.serving.online.problems import InvalidRequestError, ProblemError, retry_later
from mlops_assets.serving.online.trial import in_canary, score_challenger
from mlops_assets.serving.prediction_record import PredictionRecord, Role
from mlops_assets.serving.requests import RequestError, Row
from mlops_assets.serving.scorer import Scored
from mlops_assets.serving.spool import SpoolError, SpoolWriter

_log = logging.getLogger(__name__)

CHUNK_ROWS = 50
"""So many rows are scored before other requests get their turn."""


class Answer(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The prediction for one row; `flags` tells by feature view how its values were found, `ok` or why they are missing.

    `score` and `predicted_label` of a classification, with `probabilities` in the order of the contract's classes when there are more
    than two; `value` of a regression.
    """

    prediction_id: str
    model_version: int
    score: float | None = None
    predicted_label: int | str | None = None
    value: float | None = None
    probabilities: list[float] | None = None
    flags: dict[str, str]


class Predictor:
    """Answers for every solution that this process serves."""

    def __init__(self, solutions: LiveSolutions, spool_directory: Path, metrics: Metrics):
        self.solutions = solutions
        self._spool_directory, self._metrics = spool_directory, metrics
        self._spools: dict[str, SpoolWriter] = {}
        # Requests without an id of their own get one that no other process gives: cheaper than a random one each.
        self._process, self._numbers = secrets.token_hex(8), itertools.count(1)

    def solution(self, name: str) -> LiveSolution:
        """A solution that answers online. Raises ProblemError (404) for any other name."""
        solution = self.solutions.get(name)
        if solution is None or not solution.options.online:
            known = ", ".join(sorted(each for each, found in self.solutions.items() if found.options.online)) or "none"
            raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no solution {name!r} online; there are: {known}.", {})
        return solution

    def champions(self, solution: LiveSolution) -> LiveChampions:
        """The models that answer for `solution`. Raises ProblemError (503) while there is none."""
        champions = solution.champions
        if champions is None:
            detail = "; ".join(solution.problems) or f"{solution.name} has no champion yet: promote a version."
            raise retry_later(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        return champions

    async def predict(self, name: str, body: bytes, deadline: float) -> bytes:
        """The JSON answer for the row or the rows in `body`, whose predictions are in the spool by then.

        Raises ProblemError: for a request that is not valid, and when `deadline` (of `time.monotonic`) passes before all is scored.
        """
        solution = self.solution(name)
        champions, challenger = self.champions(solution), solution.challenger.model
        received_at = datetime.now(UTC)
        try:
            decoded = champions.default.decoder.decode(body, received_at)
            rows = [decoded] if isinstance(decoded, Row) else decoded
            scored = await _score(champions, rows, deadline)
        except RequestError as error:
            raise InvalidRequestError(error) from error
        except UnknownOnlineViewError as error:
            raise retry_later(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        tried, by_challenger = self._try(solution, challenger, body, received_at, scored)
        identifiers = [row.request_id or f"{self._process}-{next(self._numbers)}" for row in rows]

        def record(position: int, made: Scored, role: Role) -> PredictionRecord:
            answered = (position in by_challenger) == (role == "challenger")
            return made.record(solution=name, channel="online", role=role, answered=answered, request_id=identifiers[position])

        records = [record(position, made, "champion") for position, made in enumerate(scored)]
        others = {position: record(position, made, "challenger") for position, made in tried.items()}
        self._keep(name, [*records, *others.values()])
        answers = [_answer(others[at] if at in by_challenger else each) for at, each in enumerate(records)]
        return msgspec.json.encode(answers[0] if isinstance(decoded, Row) else answers)

    def close(self) -> None:
        """Give the segments of the spools to the shipper."""
        for spool in self._spools.values():
            spool.close()

    def _try(
        self, solution: LiveSolution, challenger: Model | None, body: bytes, received_at: datetime, scored: Sequence[Scored]
    ) -> tuple[dict[int, Scored], set[int]]:
        """What the challenger makes of the rows that it gets, by position, and which of them it answers."""
        if challenger is None:
            return {}, set()
        canary = [in_canary(solution.options, made.entity, made.key) for made in scored]
        tried = score_challenger(challenger, solution.options, body, received_at, canary)
        if tried is None:
            self._metrics.challenger_failures.labels(solution.name).inc()
            return {}, set()
        return tried, {position for position in tried if canary[position]}

    def _keep(self, name: str, records: Sequence[PredictionRecord]) -> None:
        """Write the predictions to the spool. Raises ProblemError (503) when they cannot be kept: they must not be answered then."""
        if (spool := self._spools.get(name)) is None:
            spool = self._spools[name] = SpoolWriter(self._spool_directory / name)
        try:
            spool.append(*records)
        except SpoolError as error:
            _log.error("%s", error)
            raise retry_later(HTTPStatus.SERVICE_UNAVAILABLE, "The prediction cannot be kept now.") from error
        for record in records:
            self._metrics.count(record)


async def _score(champions: LiveChampions, rows: Sequence[Row], deadline: float) -> list[Scored]:
    """Score `rows`, in parts, with other requests between them. Raises RequestError, and ProblemError (503) after the deadline."""
    scored: list[Scored] = []
    for start in range(0, len(rows), CHUNK_ROWS):
        if start:
            await asyncio.sleep(0)
        if monotonic() > deadline:
            raise retry_later(HTTPStatus.SERVICE_UNAVAILABLE, "The server is too busy to answer in time.")
        try:
            scored += champions.score(rows[start : start + CHUNK_ROWS])
        except RequestError as error:
            raise error.at(start + (error.row or 0) if len(rows) > 1 else None) from error
    return scored


def _answer(record: PredictionRecord) -> Answer:
    outputs = record.outputs
    return Answer(
        prediction_id=record.prediction_id,
        model_version=record.model_version,
        score=outputs.score,
        predicted_label=outputs.predicted_label,
        value=outputs.value,
        probabilities=outputs.probabilities,
        flags={name: view.flag for name, view in record.views.items()},
    )
