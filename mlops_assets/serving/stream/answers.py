"""Answers to the events of a stream: for each event one prediction, or one reject with the reason. Talks to no server."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlops_assets.clients.event_stream import PREDICTIONS, reject_message, subject
from mlops_assets.clients.publishing import Message
from mlops_assets.serving.prediction_record import encode_record
from mlops_assets.serving.requests import RequestError, Row
from mlops_assets.serving.scorer import ScoredRow

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from mlops_assets.serving.live import LiveChampions


def answer(champions: "LiveChampions", events: "Sequence[Msg]", maximum_payload: int) -> list[Message]:
    """One message an event, whose id depends on the event alone: whoever answers it again publishes the same one.

    What is wrong with an event itself makes a reject of it alone. Raises what the online store raises when it is away or lacks a view.
    """
    name = champions.default.contract.name
    messages: list[Message] = []
    valid: list[tuple[Msg, Row]] = []
    for event in events:
        try:
            # The time of an event that gives none is when the stream stored it, however often it is given out.
            valid.append((event, champions.default.decoder.decode_row(event.data, event.metadata.timestamp)))
        except RequestError as error:
            messages.append(reject_message(name, event, str(error)))
    for event, row, scored in _scored(champions, valid):
        message = reject_message(name, event, scored) if isinstance(scored, str) else _prediction(name, event, row, scored)
        if len(message.payload) > maximum_payload:
            message = reject_message(name, event, f"the prediction has more than {maximum_payload} bytes")
        messages.append(message)
    return messages


def _scored(champions: "LiveChampions", rows: "Sequence[tuple[Msg, Row]]") -> "list[tuple[Msg, Row, ScoredRow | str]]":
    """The rows with what the model answers, or why it cannot."""
    try:
        answers: list[ScoredRow] = champions.score([row for _, row in rows])
    except (ValueError, TypeError, ArithmeticError) as error:
        if len(rows) == 1:
            [(event, row)] = rows
            return [(event, row, str(error))]
        # One of them has no answer: alone, it costs no other its own.
        return [answered for row in rows for answered in _scored(champions, [row])]
    return [(event, row, scored) for (event, row), scored in zip(rows, answers, strict=True)]


def _prediction(solution: str, event: "Msg", row: Row, scored: ScoredRow) -> Message:
    origin = event.metadata
    # A stream that is made anew counts from 1 again: with the time it cannot repeat an id.
    request_id = row.request_id or f"{origin.timestamp:%Y%m%dT%H%M%S%f}-{origin.sequence.stream}"
    record = scored.record(
        solution=solution, channel="stream", role="champion", answered=True, request_id=request_id, caller=None
    )
    return Message(subject(PREDICTIONS, solution), record.prediction_id, encode_record(record))
