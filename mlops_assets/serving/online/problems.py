"""Answers that are no prediction: what is wrong with a request, or with the server, as a status and a JSON object (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from mlops_assets.serving.requests import RequestError

CONTENT_TYPE = "application/problem+json"


class Problem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The body of an error. Of a row that is not valid: which one (from 0), its field, what is wrong with it and what is allowed."""

    status: int
    title: str
    detail: str
    row: int | None = None
    field: str | None = None
    problem: str | None = None
    allowed: str | None = None


class ProblemError(Exception):
    """Ends a request with an error: its status, what to say, and headers."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str]):
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers

    def body(self) -> bytes:
        """The JSON object."""
        return msgspec.json.encode(Problem(status=self.status, title=self.status.phrase, detail=self.detail, **self.fields()))

    def fields(self) -> dict[str, Any]:
        """More fields of the object."""
        return {}


class InvalidRequestError(ProblemError):
    """A request that a RequestError describes."""

    def __init__(self, error: RequestError):
        # Without a field it is the body as a whole.
        status = HTTPStatus.BAD_REQUEST if error.field is None and error.row is None else HTTPStatus.UNPROCESSABLE_ENTITY
        super().__init__(status, str(error), {})
        self.error = error

    def fields(self) -> dict[str, Any]:
        """The place of the fault in the request, and the fault."""
        return {name: getattr(self.error, name) for name in ("row", "field", "problem", "allowed")}


def retry_later(status: HTTPStatus, detail: str) -> ProblemError:
    """The request is right, and another moment may be: 429, 503 or 504 with `Retry-After`."""
    return ProblemError(status, detail, {"retry-after": "1"})
