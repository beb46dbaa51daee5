"""The models that a process serves: they follow the links of the serving folder, and change under load without a request noticing.

A new bundle is loaded beside the old one, verified, warmed up, and put in its place by assigning one reference. A request takes the
reference once. A bundle that cannot serve leaves the old one in place, and says why.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_assets.clients.signatures import Signer
from mlops_assets.online_store.store import OnlineStore
from mlops_assets.schema.solution import Serving
from mlops_assets.serving.active import CHALLENGER_LINK, CHAMPION_LINK, segment_links
from mlops_assets.serving.bundle import BundleError, load_deployed
from mlops_assets.serving.bundle_store import BundleStore, SolutionBundles
from mlops_assets.serving.contract import Contract
from mlops_assets.serving.requests import RequestDecoder, RequestError, Row
from mlops_assets.serving.scorer import Scored, Scorer
from mlops_assets.serving.segments import Champions

_RETRY_SECONDS = 30.0
"""How long until a bundle that could not serve is tried again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A bundle that is ready to answer: what decodes its requests, what scores them, and when it came to serve."""

    decoder: RequestDecoder
    scorer: Scorer
    since: datetime

    @property
    def contract(self) -> Contract:
        """What the model reads and answers."""
        return self.scorer.bundle.contract

    @property
    def path(self) -> Path:
        """The folder of the bundle."""
        return self.scorer.bundle.path

    @classmethod
    def load(cls, path: Path, online_store: OnlineStore, signer: Signer) -> "Model":
        """Load the bundle in the folder `path`, verify it, and answer its example requests with features looked up as in service.

        Raises what the record beside it, the bundle, the contract's types or the online store raise.
        """
        # A second thread gains nothing with few rows, and has to be waited for.
        bundle = load_deployed(path, signer, threads=1)
        decoder, scorer = RequestDecoder(bundle.contract), Scorer(bundle, online_store)
        for example in bundle.sample.rows:
            row = decoder.decode(json.dumps(example.request).encode(), datetime.now(UTC))
            assert isinstance(row, Row)  # an example is an object
            scorer.score([row])
        return cls(decoder, scorer, datetime.now(UTC))


class LiveModel:
    """The model behind one link of a solution's folder. One thread calls `refresh`, any number read `model`."""

    def __init__(self, bundles: SolutionBundles, link: str, online_store: OnlineStore, signer: Signer):
        self.model: Model | None = None
        self.problem: str | None = None
        """Why the linked bundle does not serve; None when it does."""
        self._bundles, self._link, self._online_store, self._signer = bundles, link, online_store, signer
        self._refused: tuple[Path, float] | None = None

    def refresh(self) -> bool:
        """Follow the link. Returns whether another bundle, or none, serves now."""
        target = self._bundles.active(self._link)
        before = self.model
        if target is None or (before is not None and target == before.path):
            self.problem = self._refused = None
            self.model = before if target else None
            return self.model is not before
        if self._refused is not None and self._refused[0] == target and time.monotonic() < self._refused[1]:
            return False
        try:
            self.model = Model.load(target, self._online_store, self._signer)
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
        self._routing = Champions(default.scorer.bundle, [model.scorer.bundle for model in segments])

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        """See `Scorer.score`; each row is scored by the model of its segment."""
        if not self.segments:
            return self.default.scorer.score(rows)
        positions: dict[Path, list[int]] = {}
        for position, row in enumerate(rows):
            positions.setdefault(self._routing.of(row.columns).path, []).append(position)
        scored: dict[int, Scored] = {}
        for model in (self.default, *self.segments):
            chosen = positions.get(model.path, [])
            try:
                scored |= zip(chosen, model.scorer.score([rows[position] for position in chosen]), strict=True)
            except RequestError as error:
                raise error.at(chosen[error.row or 0]) from error
        return [scored[position] for position in range(len(rows))]


class LiveSolution:
    """The champions of one solution, and its challenger while the solution's options want one tried.

    A request takes `champions` once: None while there is none. `problems` tells which linked bundles do not serve, and why.
    """

    def __init__(self, name: str, bundles: SolutionBundles, online_store: OnlineStore, signer: Signer):
        self.name = name
        self.champions: LiveChampions | None = None
        self.challenger = LiveModel(bundles, CHALLENGER_LINK, online_store, signer)
        self.options = Serving()
        self.problems: tuple[str, ...] = ()
        self._bundles, self._online_store, self._signer = bundles, online_store, signer
        self._champion = LiveModel(bundles, CHAMPION_LINK, online_store, signer)
        self._segments: dict[str, LiveModel] = {}

    def refresh(self) -> bool:
        """Follow the links and the options. Returns whether another model serves now."""
        before = (self.champions, self.challenger.model)
        self.options = self._bundles.read_options()
        self._segments = {
            link: self._segments.get(link) or LiveModel(self._bundles, link, self._online_store, self._signer)
            for link in segment_links(self._bundles.aliases())
        }
        followed = [self._champion, *self._segments.values()]
        if self.options.tries_challenger:
            followed.append(self.challenger)
        else:
            self.challenger.model = self.challenger.problem = None
        for live in followed:
            live.refresh()
        problems = [live.problem for live in followed if live.problem]
        try:
            self.champions = self._together()
        except BundleError as error:
            problems.append(str(error))
        self.problems = tuple(problems)
        return (self.champions, self.challenger.model) != before

    def _together(self) -> LiveChampions | None:
        """The models behind the links now, as one; the same object as before when they are the same."""
        default, before = self._champion.model, self.champions
        segments = tuple(live.model for live in self._segments.values() if live.model)
        if default is None:
            return None
        return before if before and (before.default, before.segments) == (default, segments) else LiveChampions(default, segments)


class LiveSolutions(Mapping[str, LiveSolution]):
    """Every solution that has bundles in the store, by name. One thread calls `refresh`, any number read."""

    def __init__(self, store: BundleStore, online_store: OnlineStore, signer: Signer):
        self._store, self._online_store, self._signer = store, online_store, signer
        self._solutions: dict[str, LiveSolution] = {}

    def refresh(self) -> bool:
        """Follow every solution, new ones included. Returns whether another model serves somewhere now."""
        if added := [name for name in self._store.solutions() if name not in self._solutions]:
            # A new mapping: another thread may be reading the former one.
            self._solutions = self._solutions | {
                name: LiveSolution(name, self._store.of(name), self._online_store, self._signer) for name in added
            }
        changed = [solution.refresh() for solution in self._solutions.values()]
        return any(changed)

    def __getitem__(self, name: str) -> LiveSolution:
        return self._solutions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._solutions)

    def __len__(self) -> int:
        return len(self._solutions)
