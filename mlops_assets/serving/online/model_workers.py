"""Models in worker processes of LitServe: how one is started, asked, started again when it dies, and ended.

A worker is LitServe's and calls `ModelAPI` (`model_api.py`). A version has workers of its own, so that a new one loads beside the old
one. Only a worker loads the libraries of a model without ONNX form. HTTP, validation, features and the log of predictions stay in the
process that accepted the request (docs/adr/0032-engines.md).
"""

import itertools
import logging
import multiprocessing
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from litserve.callbacks import CallbackRunner
from litserve.loops import inference_worker
from litserve.utils import LitAPIStatus

from mlops_assets.clients.signatures import Signer
from mlops_assets.schema.solution import Worker
from mlops_assets.serving.online.model_api import Matrices, ModelAPI, PipeTransport

STARTING_SECONDS = 120.0
"""So long may a worker take to load its bundle."""

_ATTEMPTS = 2
"""A request that a worker had when it died is given to its successor; one that two workers died of is refused."""
_STUCK_SECONDS = 10.0
"""A worker that is so much later than the time limit with a request is ended, and started again."""
_RESTART_SECONDS = 1.0
_STOP = (None, None, None, None)
"""What LitServe's loops end at."""

_log = logging.getLogger(__name__)
_context = multiprocessing.get_context("spawn")


class WorkerError(Exception):
    """A worker cannot answer now; another moment it may."""


class WorkerTimeoutError(WorkerError):
    """A worker did not answer in time."""


@dataclass(eq=False)
class _Request:
    matrices: Matrices
    future: "Future[np.ndarray]"
    patience: float
    given_at: float = 0.0
    attempts: int = 0


@dataclass(eq=False)
class _Process:
    """One worker process with its own queue and pipe, and the requests that it has not answered."""

    process: Any
    queue: Any
    answers: Connection
    waiting: dict[int, _Request] = field(default_factory=dict)


class WorkerModel:
    """A model of one bundle that answers in worker processes. Safe to call from several threads."""

    def __init__(self, path: Path, signer: Signer, options: Worker):
        """Start the workers; the first answer waits until one has loaded the bundle."""
        self.options = options
        self._path, self._signer = path, signer
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._closed = False
        self._started = False
        self._workers = [self._start() for _ in range(options.processes)]
        self._threads = [
            threading.Thread(target=self._receive, args=(position,), name=f"worker {path.name}", daemon=True)
            for position in range(options.processes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def time_limit(self) -> float:
        """The most seconds from a request to its answer."""
        return self.options.timeout_seconds

    def submit(self, numeric: np.ndarray, categorical: np.ndarray) -> "Future[np.ndarray]":
        """Give a request to the worker that has the fewest. The answer raises WorkerError or ValueError when there is none."""
        return self._submit((np.ascontiguousarray(numeric), categorical), 0.0)

    def predict(self, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """Wait for the answer, however long a worker takes to start. For threads that load models."""
        return self._submit((np.ascontiguousarray(numeric), categorical), STARTING_SECONDS).result(STARTING_SECONDS)

    def _submit(self, matrices: Matrices, patience: float) -> "Future[np.ndarray]":
        """Give a request that may wait so many seconds longer than the time limit."""
        request = _Request(matrices, Future(), patience)
        # Whoever stops waiting does not take the answer away from the thread that gives it.
        request.future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                request.future.set_exception(WorkerError("The workers of this version have ended."))
            else:
                self._give(min(self._workers, key=lambda worker: len(worker.waiting)), request)
        return request.future

    def close(self) -> None:
        """End the workers after the requests that they have; what comes later is refused."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for worker in self._workers:
                    worker.queue.put(_STOP)

    def join(self, seconds: float) -> None:
        """Wait for the workers after `close`; those that are not done in `seconds` are killed."""
        deadline = time.monotonic() + seconds
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()

    def _give(self, worker: _Process, request: _Request) -> None:
        number = next(self._numbers)
        request.given_at, request.attempts = time.monotonic() + request.patience, request.attempts + 1
        worker.waiting[number] = request
        worker.queue.put((0, number, request.given_at, request.matrices))

    def _start(self) -> _Process:
        queue = _context.Queue()
        receiving, sending = _context.Pipe(duplex=False)
        arguments: tuple[Any, ...] = (
            ModelAPI(self._path, self._signer, self.options),
            "cpu",
            0,
            queue,
            PipeTransport(sending),
            {},
            CallbackRunner(),
            False,
        )
        process = _context.Process(target=inference_worker, args=arguments, name="inference-worker", daemon=True)
        process.start()
        sending.close()
        return _Process(process, queue, receiving)

    def _receive(self, position: int) -> None:
        """Take the answers of one worker, and replace it when it ends, until the workers are closed."""
        while True:
            worker = self._workers[position]
            ready = wait([worker.answers, worker.process.sentinel], timeout=_RESTART_SECONDS)
            if worker.answers in ready and self._take(worker):
                continue
            if worker.process.is_alive():
                self._end_stuck(worker)
                continue
            if self._closed:
                self._fail(worker, WorkerError("The workers of this version have ended."))
                return
            if not self._started:
                # It could not load its bundle: whoever loads the version is told, and tries again.
                self._closed = True
                reason = f"its worker ended with exit code {worker.process.exitcode} before it answered; the server's log has the reason"
                self._fail(worker, WorkerError(reason))
                return
            _log.error("A worker of %s ended with exit code %s: it is started again.", self._path, worker.process.exitcode)
            time.sleep(_RESTART_SECONDS if not worker.waiting else 0)
            self._replace(position)

    def _take(self, worker: _Process) -> bool:
        """Take one answer. False when the worker's end of the pipe is closed."""
        try:
            number, (answer, status, *_) = worker.answers.recv()
        except (EOFError, OSError):
            return False
        with self._lock:
            request = worker.waiting.pop(number, None)
        if request is None or request.future.done():
            return True
        self._started = True
        if status == LitAPIStatus.OK and isinstance(answer, np.ndarray):
            request.future.set_result(answer)
        elif isinstance(answer, str):
            request.future.set_exception(ValueError(answer))
        else:
            # LitServe refuses what waited longer than the time limit.
            request.future.set_exception(WorkerTimeoutError("The request waited too long for a worker."))
        return True

    def _replace(self, position: int) -> None:
        """Start a successor of a worker, and give it the requests that the worker had."""
        successor = self._start()
        with self._lock:
            former, self._workers[position] = self._workers[position], successor
            left = list(former.waiting.values())
            former.waiting.clear()
            again = [request for request in left if not request.future.done() and request.attempts < _ATTEMPTS]
            for request in again:
                self._give(successor, request)
        for request in left:
            if request not in again and not request.future.done():
                request.future.set_exception(WorkerError("Workers ended while they predicted this request."))
        former.answers.close()

    def _end_stuck(self, worker: _Process) -> None:
        """Kill a worker that is far beyond the time limit with the oldest of its requests."""
        if not self._started:
            return
        with self._lock:
            oldest = min((request.given_at for request in worker.waiting.values()), default=None)
        if oldest is not None and time.monotonic() - oldest > self.options.timeout_seconds + _STUCK_SECONDS:
            _log.error("A worker of %s has not answered for %.0f s: it is ended.", self._path, time.monotonic() - oldest)
            worker.process.kill()

    def _fail(self, worker: _Process, error: WorkerError) -> None:
        with self._lock:
            left = list(worker.waiting.values())
            worker.waiting.clear()
        for request in left:
            if not request.future.done():
                request.future.set_exception(error)
