"""Two models on the same rows: the paired difference of every metric, and the rule by which one counts as worse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.ml.bootstrap import Interval, Replicates, bootstrap, difference_interval, replicate_count
from mlops_assets.ml.evaluation import Evaluation, Resampling
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import distance_from_perfect, greater_is_better

_NEGLIGIBLE_SHARE = 0.02


@dataclass(frozen=True)
class MetricDifference:
    """One metric of two models on the same rows: `value` is ours minus theirs, with the interval of the paired bootstrap."""

    metric: str
    ours: float | None
    theirs: float | None
    value: float | None
    interval: Interval | None

    @property
    def loss(self) -> float | None:
        """By how much ours is worse; negative when it is better."""
        return None if self.value is None else -self.value if greater_is_better(self.metric) else self.value

    @property
    def loss_interval(self) -> Interval | None:
        """The interval of `loss`."""
        return self.reversed.interval if greater_is_better(self.metric) else self.interval

    @property
    def reversed(self) -> "MetricDifference":
        """The difference the other way round: theirs minus ours."""
        return MetricDifference(
            metric=self.metric,
            ours=self.theirs,
            theirs=self.ours,
            value=None if self.value is None else -self.value,
            interval=None if self.interval is None else Interval(low=-self.interval.high, high=-self.interval.low),
        )

    @property
    def is_better(self) -> bool:
        """Whether ours is better, and not by chance alone: the whole interval of the loss is below zero."""
        return self.loss_interval is not None and self.loss_interval.high < 0

    @property
    def negligible_loss(self) -> float:
        """The loss that is no reason to keep theirs, however certain many rows make it: a fiftieth of their distance from the perfect value."""
        return 0.0 if self.theirs is None else _NEGLIGIBLE_SHARE * distance_from_perfect(self.metric, self.theirs)

    def is_worse(self, tolerance: float) -> bool:
        """Whether ours is worse by more than `tolerance`, and not by chance alone.

        Both must hold: the loss is over the tolerance, and its whole interval is over zero (over the tolerance where that is
        negative, which asks for an improvement). So a small hold-out does not refuse an equal model because of noise, and a
        large one does not refuse a loss that the team tolerates. A metric that is not defined counts as worse.
        """
        if self.loss is None:
            return True
        if self.loss <= tolerance:
            return False
        return self.loss_interval is None or self.loss_interval.low > min(0.0, tolerance)


def compare_models(
    ours: Evaluation, theirs: WeightedMetrics, *, names: tuple[str, ...], resampling: Resampling
) -> dict[str, MetricDifference]:
    """The difference of the metrics `names`; `theirs` are the rows that `ours` was made of, predicted by the other model.

    `resampling` is that of the evaluation: the same resamples make the difference a paired one.
    """
    count = len(next(iter(ours.replicates.values()), np.empty(0)))
    return _differences(
        names,
        ours=(ours.metrics, ours.replicates),
        theirs=_measured(theirs, names=names, replicates=count, seed=resampling.seed, blocks=resampling.blocks),
        blocks=resampling.blocks,
    )


def compare_rows(
    ours: WeightedMetrics, theirs: WeightedMetrics, *, names: Sequence[str], resampling: Resampling
) -> dict[str, MetricDifference]:
    """The difference of the metrics `names` of two models that predicted the same rows."""
    blocks = resampling.blocks
    of_ours, of_theirs = (
        _measured(rows, names=names, replicates=replicate_count(len(rows.labels)), seed=resampling.seed, blocks=blocks)
        for rows in (ours, theirs)
    )
    return _differences(names, ours=of_ours, theirs=of_theirs, blocks=blocks)


_Measured = tuple[Mapping[str, float | None], Replicates]


def _measured(rows: WeightedMetrics, *, names: Sequence[str], replicates: int, seed: int, blocks: np.ndarray | None) -> _Measured:
    return rows.values(names), bootstrap(rows, names=names, replicates=replicates, seed=seed, blocks=blocks)


def _differences(
    names: Sequence[str], *, ours: _Measured, theirs: _Measured, blocks: np.ndarray | None
) -> dict[str, MetricDifference]:
    differences = {}
    for name in names:
        own, other = ours[0][name], theirs[0][name]
        value = None if own is None or other is None else own - other
        differences[name] = MetricDifference(
            metric=name,
            ours=own,
            theirs=other,
            value=value,
            interval=difference_interval(name, value, ours[1][name], theirs[1][name], blocks),
        )
    return differences
