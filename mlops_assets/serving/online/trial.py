"""A challenger beside the champion: in its shadow, or with a share of the answers. Which rows it gets belongs here.

The challenger never fails a request: what it cannot score, the champion answers.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b

import msgspec

from mlops_assets.schema.solution import Serving
from mlops_assets.serving.live import Model
from mlops_assets.serving.prediction_record import Value
from mlops_assets.serving.requests import Row
from mlops_assets.serving.scorer import ScoredRow

_log = logging.getLogger(__name__)


def in_canary(options: Serving, entity: Mapping[str, Value], key: str | int) -> bool:
    """Whether the challenger answers for this entity: the same in every process, at every time. Without entity keys the key decides."""
    if options.canary <= 0:
        return False
    identity = msgspec.json.encode(list(entity.values()) or [key])
    return int.from_bytes(blake2b(identity, digest_size=8).digest(), "big") < options.canary * 2**64


def score_challenger(
    challenger: Model, options: Serving, body: bytes, received_at: datetime, canary: Sequence[bool]
) -> dict[int, ScoredRow] | None:
    """Score the rows of `body` that the challenger gets: all of them in the shadow, else those in the `canary`.

    By the row's position; None when it cannot score them, which is logged.
    """
    try:
        chosen, rows = _chosen(challenger, options, body, received_at, canary)
        return dict(zip(chosen, challenger.scorer.score(rows), strict=True))
    except Exception as error:  # the champion answers, whatever is wrong with the challenger
        _tell(challenger, error)
        return None


async def score_challenger_later(
    challenger: Model, options: Serving, body: bytes, received_at: datetime, canary: Sequence[bool], seconds: float
) -> dict[int, ScoredRow] | None:
    """Score as `score_challenger` does with a model in other processes, which has so many `seconds`."""
    try:
        chosen, rows = _chosen(challenger, options, body, received_at, canary)
        return dict(zip(chosen, await challenger.score_later(rows, seconds), strict=True))
    except Exception as error:  # as above
        _tell(challenger, error)
        return None


def _chosen(
    challenger: Model, options: Serving, body: bytes, received_at: datetime, canary: Sequence[bool]
) -> tuple[list[int], list[Row]]:
    """The rows that the challenger gets, with their positions."""
    chosen = [position for position, is_canary in enumerate(canary) if is_canary or options.shadow]
    if not chosen:
        return [], []
    # Its contract may ask for other columns.
    decoded = challenger.decoder.decode(body, received_at)
    rows = [decoded] if isinstance(decoded, Row) else decoded
    return chosen, [rows[position] for position in chosen]


def _tell(challenger: Model, error: Exception) -> None:
    contract = challenger.contract
    _log.warning("Version %d of %s cannot score a request as challenger: %r", contract.version, contract.name, error)
