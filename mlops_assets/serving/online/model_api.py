"""The model of one bundle inside a worker process of LitServe: its hooks, its loop, and the pipe of its answers.

LitServe's loop takes requests from a queue, up to `max_batch_size` at once, leaves out those that waited too long, and calls the hooks of
the `LitAPI`. `model_workers.py` starts the workers.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from litserve.loops.simple_loops import BatchedLoop
from litserve.transport.base import MessageTransport

from mlops_assets.clients.signatures import Signer
from mlops_assets.schema.solution import Worker
from mlops_assets.serving.bundle import Bundle
from mlops_assets.serving.bundle_loading import load_deployed

Matrices = tuple[np.ndarray, np.ndarray]
"""Numeric and categorical features of some rows."""


class ModelAPI(litserve.LitAPI):
    """The bundle of one version in a worker process."""

    def __init__(self, path: Path, signer: Signer, options: Worker):
        loop = _PatientLoop()
        timeout = options.batch_timeout_milliseconds / 1000
        super().__init__(max_batch_size=options.max_batch_size, batch_timeout=timeout, api_path="/predict", loop=loop)
        self.request_timeout = options.timeout_seconds
        self._path, self._signer = path, signer

    def setup(self, device: str) -> None:
        """Load the bundle, which answers its sample. Called in the worker, whose log has the reason when it cannot."""
        _follow_parent()
        self._bundle: Bundle = load_deployed(self._path, self._signer, threads=1)

    def batch(self, inputs: Sequence[Matrices]) -> list[Matrices]:
        """The matrices of the requests as they are: a request that fails must not fail the others."""
        return list(inputs)

    def predict(self, x: list[Matrices]) -> list[np.ndarray | str]:
        """The answers of the requests, predicted at once; of one that cannot be predicted the reason."""
        numeric, categorical = (np.concatenate(parts) for parts in zip(*x, strict=True))
        try:
            answers = self._bundle.predict(numeric, categorical)
        except Exception as error:  # whatever an estimator raises
            if len(x) == 1:
                return [f"{type(error).__name__}: {error}"]
            return [answer for request in x for answer in self.predict([request])]
        return [*np.split(answers, np.cumsum([len(request[0]) for request in x])[:-1])]

    def unbatch(self, output: list[np.ndarray | str]) -> list[np.ndarray | str]:
        """As they are."""
        return output


class _PatientLoop(BatchedLoop):
    """LitServe's loop of batches; by itself it asks an empty queue a thousand times a second, or without a pause."""

    def get_batch_requests(self, lit_api: litserve.LitAPI, request_queue: Any, transport: MessageTransport) -> Any:
        first = request_queue.get()
        return super().get_batch_requests(lit_api, _Ahead(first, request_queue), transport)


class _Ahead:
    """A queue whose first entry was taken already."""

    def __init__(self, first: Any, queue: Any):
        self._first, self._queue = [first], queue

    def get(self, timeout: float) -> Any:
        return self._first.pop() if self._first else self._queue.get(timeout=timeout)

    def get_nowait(self) -> Any:
        return self._first.pop() if self._first else self._queue.get_nowait()


class PipeTransport(MessageTransport):
    """Answers on a pipe of the worker's own: one that is killed leaves no lock behind that others wait for."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def send(self, item: Any, consumer_id: int) -> None:
        """Send an answer to the process that accepted its request."""
        self._connection.send(item)

    async def areceive(self, timeout: int | None = None, consumer_id: int | None = None) -> dict:
        """Raise NotImplementedError: a thread of the other process receives."""
        raise NotImplementedError


def _follow_parent() -> None:
    """End with the process that started this one; the signals that ask the server to stop are for that one, which answers first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker is started by a server

    def follow() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=follow, name="parent", daemon=True).start()
