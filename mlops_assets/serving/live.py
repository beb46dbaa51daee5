"""The models that a process serves: they follow the links of the serving folder, and change under load without a request noticing.

A new bundle is loaded beside the old one, verified, warmed up, and put in its place by assigning one reference. A request takes the
reference once. A bundle that cannot serve leaves the old one in place, and says why.
"""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from mlops_assets.clients.bundle_record import served_record
from mlops_assets.clients.signatures import Signer
from mlops_assets.online_store.store import OnlineStore
from mlops_assets.schema.solution import Serving, Worker
from mlops_assets.serving.active import CHALLENGER_LINK, CHAMPION_LINK, segment_links
from mlops_assets.serving.bundle import Bundle, BundleError, RemoteModel
from mlops_assets.serving.bundle_loading import load_contract, load_deployed, open_bundle
from mlops_assets.serving.bundle_store import BundleStore, FollowedBundles, SolutionBundles
from mlops_assets.serving.contract import Contract
from mlops_assets.serving.engine import EngineChoice, recorded_engine
from mlops_assets.serving.requests import RequestDecoder, RequestError, Row
from mlops_assets.serving.scorer import ScoredRow, Scorer
from mlops_assets.serving.segments import Champions

_RETRY_SECONDS = 30.0
"""How long until a bundle that could not serve is tried again."""

_RETIRE_SECONDS = 1.0
"""So much longer than their time limit the workers of a former model wait for requests."""

StartWorkers = Callable[[Path, Signer, Worker], RemoteModel]
"""Starts the workers of the bundle in a folder."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A bundle that is ready to answer: what decodes its requests, what scores them, the engine that runs it, and since when it serves.

    `remote` is its model when that runs in other processes.
    """

    decoder: RequestDecoder
    scorer: Scorer
    engine: EngineChoice
    remote: RemoteModel | None
    since: datetime

    @property
    def contract(self) -> Contract:
        """The inputs and the outputs of the model."""
        return self.scorer.bundle.contract

    @property
    def path(self) -> Path:
        """The folder of the bundle."""
        return self.scorer.bundle.path

    @classmethod
    def load(cls, path: Path, online_store: OnlineStore, signer: Signer, options: Serving, start: StartWorkers | None) -> "Model":
        """Load the bundle in the folder `path`, verify it, and answer its example requests with features looked up as in service.

        Under the engine `worker` its model is loaded by the workers that `start` starts; without it, in this process. Raises what the
        record beside it, the bundle, the contract's types, the workers or the online store raise.
        """
        record = served_record(signer, path)
        engine = recorded_engine(load_contract(path, record.files), options.engine, record)
        if engine.engine == "process" or start is None:
            # A second thread gains nothing with few rows, and has to be waited for.
            return cls._ready(load_deployed(path, signer, threads=1), engine, None, online_store)
        workers = start(path, signer, options.worker)
        try:
            bundle = open_bundle(path, record.files, workers)
            bundle.verify()
            return cls._ready(bundle, engine, workers, online_store)
        except BaseException:
            workers.close()
            raise

    @classmethod
    def _ready(cls, bundle: Bundle, engine: EngineChoice, remote: RemoteModel | None, online_store: OnlineStore) -> "Model":
        decoder, scorer = RequestDecoder(bundle.contract), Scorer(bundle, online_store)
        for example in bundle.sample.rows:
            row = decoder.decode(json.dumps(example.request).encode(), datetime.now(UTC))
            assert isinstance(row, Row)  # an example is an object
            scorer.score([row])
        return cls(decoder, scorer, engine, remote, datetime.now(UTC))

    async def score_later(self, rows: Sequence[Row], seconds: float) -> list[ScoredRow]:
        """See `Scorer.score`; others need not wait for the workers of the model. Raises TimeoutError when they need longer than `seconds`."""
        if (remote := self.remote) is None or not rows:
            return self.scorer.score(rows)
        prepared = self.scorer.prepare(rows)
        answer = asyncio.wrap_future(remote.submit(prepared.numeric, prepared.categorical))
        return self.scorer.complete(prepared, await asyncio.wait_for(answer, seconds))


class LiveModel:
    """The model behind one link of a solution's folder. One thread calls `refresh`, any number read `model`."""

    def __init__(
        self, bundles: SolutionBundles, link: str, online_store: OnlineStore, signer: Signer, start: StartWorkers | None
    ):
        self.model: Model | None = None
        self.problem: str | None = None
        """The reason why the linked bundle does not serve; None when it does."""
        self._bundles, self._link, self._online_store, self._signer, self._start = bundles, link, online_store, signer, start
        self._engine: object = None
        self._refused: tuple[Path, float] | None = None

    def refresh(self, options: Serving) -> bool:
        """Follow the link, and the engine of `options`. Returns whether another bundle, another engine, or none, serves now."""
        target, engine = self._bundles.active(self._link), (options.engine, options.worker)
        before = self.model
        if target is None or (before is not None and target == before.path and engine == self._engine):
            self.problem = self._refused = None
            self.model = before if target else None
            return self.model is not before
        if self._refused is not None and self._refused[0] == target and time.monotonic() < self._refused[1]:
            return False
        try:
            self.model = Model.load(target, self._online_store, self._signer, options, self._start)
            self._engine = engine
        except Exception as error:  # whatever is wrong with a new bundle, the old one goes on
            self.problem = f"{target.parent.name}/{target.name} does not serve as {self._link}: {type(error).__name__}: {error}"
            self._refused = (target, time.monotonic() + _RETRY_SECONDS)
            _log.exception("%s; %s", self.problem, f"version {before.contract.version} goes on" if before else "nothing serves")
            return False
        self.problem = self._refused = None
        _log.info("%s/%s serves as %s", target.parent.name, target.name, self._link)
        return True


class LiveChampions:
    """The champions that answer for one solution together: the model of all rows, and that of each segment that has its own.

    `has_workers` tells whether some run in other processes.
    Requests are decoded by the model of all rows. Raises BundleError when a segment's model does not fit to it.
    """

    def __init__(self, default: Model, segments: tuple[Model, ...]):
        for model in segments:
            if lacking := sorted(set(model.contract.columns) - set(default.contract.columns)):
                raise BundleError(
                    f"Version {model.contract.version} of {model.contract.name} needs {', '.join(lacking)}, which callers of version "
                    f"{default.contract.version} do not give: train both from the same YAML, or roll one back."
                )
        self.default, self.segments = default, segments
        self.models = (default, *segments)
        self.has_workers = any(model.remote for model in self.models)
        self._routing = Champions(default.scorer.bundle, [model.scorer.bundle for model in segments])

    def score(self, rows: Sequence[Row]) -> list[ScoredRow]:
        """See `Scorer.score`; each row is scored by the model of its segment."""
        if not self.segments:
            return self.default.scorer.score(rows)
        scored: dict[int, ScoredRow] = {}
        for model, chosen in self._routed(rows):
            with _at(chosen):
                scored |= zip(chosen, model.scorer.score([rows[position] for position in chosen]), strict=True)
        return [scored[position] for position in range(len(rows))]

    async def score_later(self, rows: Sequence[Row], seconds: float) -> list[ScoredRow]:
        """Return the answer of `score`, from models in other processes too. Raises TimeoutError when they need longer than `seconds`."""

        async def score_part(model: Model, chosen: Sequence[int]) -> list[tuple[int, ScoredRow]]:
            with _at(chosen):
                return list(zip(chosen, await model.score_later([rows[position] for position in chosen], seconds), strict=True))

        parts = await asyncio.gather(*(score_part(model, chosen) for model, chosen in self._routed(rows)))
        scored = dict(chain.from_iterable(parts))
        return [scored[position] for position in range(len(rows))]

    def _routed(self, rows: Sequence[Row]) -> list[tuple[Model, list[int]]]:
        """The models with the positions of the rows that each of them scores."""
        positions: dict[Path, list[int]] = {}
        for position, row in enumerate(rows):
            positions.setdefault(self._routing.of(row.columns).path, []).append(position)
        return [(model, positions[model.path]) for model in self.models if model.path in positions]


@contextmanager
def _at(positions: Sequence[int]) -> Iterator[None]:
    """Let an error of some rows tell their position among all rows."""
    try:
        yield
    except RequestError as error:
        raise error.at(positions[error.row or 0]) from error


class LiveSolution:
    """The champions of one solution, and its challenger while the solution's options want one tried.

    A request takes `champions` once: None while there is none. `problems` tells which linked bundles do not serve, and why.
    """

    def __init__(
        self, name: str, bundles: SolutionBundles, online_store: OnlineStore, signer: Signer, start: StartWorkers | None
    ):
        self.name = name
        self.champions: LiveChampions | None = None
        self.challenger = LiveModel(bundles, CHALLENGER_LINK, online_store, signer, start)
        self.options = Serving()
        self.problems: tuple[str, ...] = ()
        self._bundles, self._online_store, self._signer, self._start = bundles, online_store, signer, start
        self._champion = LiveModel(bundles, CHAMPION_LINK, online_store, signer, start)
        self._remote: dict[int, RemoteModel] = {}
        self._segments: dict[str, LiveModel] = {}

    def refresh(self) -> bool:
        """Follow the links and the options. Returns whether another model serves now."""
        before = (self.champions, self.challenger.model)
        self.options = self._bundles.read_options()
        self._segments = {
            link: self._segments.get(link) or LiveModel(self._bundles, link, self._online_store, self._signer, self._start)
            for link in segment_links(self._bundles.aliases())
        }
        followed = [self._champion, *self._segments.values()]
        if self.options.tries_challenger:
            followed.append(self.challenger)
        else:
            self.challenger.model = self.challenger.problem = None
        for live in followed:
            live.refresh(self.options)
        problems = [live.problem for live in followed if live.problem]
        if isinstance(self._bundles, FollowedBundles):
            problems += self._bundles.problems()
        try:
            self.champions = self._together()
        except BundleError as error:
            problems.append(str(error))
        self.problems = tuple(problems)
        self._retire_others([*followed, *([] if self.challenger in followed else [self.challenger])])
        return (self.champions, self.challenger.model) != before

    def close(self, seconds: float) -> None:
        """End the workers, which have so many seconds for what they were asked."""
        for remote in self._remote.values():
            remote.close()
        for remote in self._remote.values():
            remote.join(seconds)

    def _retire_others(self, followed: Sequence[LiveModel]) -> None:
        """End the workers of models that serve no more. Requests that took such a model have their time limit to be answered by it."""
        serving = [live.model for live in followed] + list(self.champions.models if self.champions else ())
        remote = {id(model.remote): model.remote for model in serving if model and model.remote}
        for key in self._remote.keys() - remote.keys():
            former = self._remote[key]
            timer = threading.Timer(former.time_limit + _RETIRE_SECONDS, former.close)
            timer.daemon = True
            timer.start()
        self._remote = remote

    def _together(self) -> LiveChampions | None:
        """The models behind the links now, as one; the same object as before when they are the same."""
        default, before = self._champion.model, self.champions
        segments = tuple(live.model for live in self._segments.values() if live.model)
        if default is None:
            return None
        return before if before and (before.default, before.segments) == (default, segments) else LiveChampions(default, segments)


class LiveSolutions(Mapping[str, LiveSolution]):
    """Every solution that has bundles in the store, by name. One thread calls `refresh`, any number read."""

    def __init__(self, store: BundleStore, online_store: OnlineStore, signer: Signer, start: StartWorkers | None = None):
        """With `start`, models of the engine `worker` run in the processes that it starts; without it all run in this one."""
        self._store, self._online_store, self._signer, self._start = store, online_store, signer, start
        self._solutions: dict[str, LiveSolution] = {}

    def refresh(self) -> bool:
        """Follow every solution, new ones included. Returns whether another model serves somewhere now."""
        if added := [name for name in self._store.solutions() if name not in self._solutions]:
            # A new mapping: another thread may be reading the former one.
            self._solutions = self._solutions | {
                name: LiveSolution(name, self._store.of(name), self._online_store, self._signer, self._start) for name in added
            }
        changed = [solution.refresh() for solution in self._solutions.values()]
        return any(changed)

    def close(self, seconds: float) -> None:
        """End the workers of all solutions."""
        for solution in self._solutions.values():
            solution.close(seconds)

    def __getitem__(self, name: str) -> LiveSolution:
        return self._solutions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._solutions)

    def __len__(self) -> int:
        return len(self._solutions)
