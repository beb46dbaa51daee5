"""The YAML schema of the sections `monitoring` and `retraining`."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mlops_assets.schema.cadence import Cadence
from mlops_assets.schema.duration import Duration
from mlops_assets.schema.yaml_model import YamlModel


class Drift(YamlModel):
    """Drift of all features but those in `ignore`: an alert is beyond chance and usual differences, and of an effect that matters."""

    effect_size: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The least effect of an alert, on the scale of the Jensen-Shannon distance (0 to 1) whatever the distance."""
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The probability that a window in which nothing changed has any alert; it is divided among the cells of the window."""
    ignore: list[str] = []
    """Features that move by nature, such as the calendar: neither their drift nor their range is checked."""
    maximum_rows: Annotated[int, Field(ge=1000)] = 20000
    """The most rows of a hold-out that are stored, and of a window that the reconstruction error reads."""
    maximum_share_of_features: Annotated[float, Field(ge=0, le=1)] = 0.3
    """The largest share of features with an alert. Checked by `drift`."""


class Performance(YamlModel):
    """When a metric, estimated or realised, is worse than on the hold-out; and how late the last labels of a window come.

    Every metric of the problem is compared. It alerts when it is worse by an effect that matters, and by more than chance and the usual
    differences between windows explain.
    """

    tolerance: Annotated[float, Field(ge=0)] = 0.15
    """By which share a metric may move away from its perfect value: a ROC AUC of 0.80 down to 0.77, one of 0.96 down to 0.954, a loss of 0.40
    up to 0.46. At least 0.005 of a metric from 0 to 1. Of `expected_calibration_error` it is 0.02; of a metric without a perfect value a share
    of the value. Checked by `performance`."""
    tolerances: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Metric -> by how much it may be worse, in its own units, in place of `tolerance`."""
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The probability that a window in which nothing changed has any alert: one half is divided among the metrics of all rows, the other
    among those of the slices. As much is divided among the differences of `groups`."""
    label_delay: Duration = "1d"
    """How long after a window its last labels come. Until then it is partial, and the estimate is compared."""


class DataQuality(YamlModel):
    """Bounds for the rows of a window. Shares are from 0 to 1, in the long run: a window alerts beyond what chance explains of them."""

    missing_increase: Annotated[float, Field(ge=0, le=1)] = 0.05
    """By how much the missing share of a feature may exceed that of the hold-out (`missing_values`)."""
    maximum_unseen: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The largest share of values that training did not hold (`unseen_categories`)."""
    maximum_out_of_range: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The largest share of numbers outside the range that training held (`out_of_range`)."""
    row_count: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.5, 2.0]
    """Least and greatest number of predictions a partition, as multiples of the hold-out's (`window_rows`)."""


class Groups(YamlModel):
    """Groups of people, or of whatever must be served alike: the metrics of each beside those of the others, as difference and ratio.

    A group alerts when it is worse than the others by an effect that matters, and by more than chance explains.
    """

    columns: Annotated[list[str], Field(min_length=1)]
    """Features or entity keys: each value is a group."""
    reference: dict[str, str] = {}
    """Column -> the group that the others are compared with. Left out: each is compared with all other rows."""
    metrics: list[str] = []
    """Metrics that are compared. Left out: all of the problem but those that fewer rows raise, as `expected_calibration_error`."""
    maximum_difference: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Metric -> by how much a group may be worse, in its own units. Left out: as `performance.tolerance`."""
    minimum_rows: Annotated[int, Field(ge=30)] = 200
    """The least rows with a known label of a group that is compared, and of the others."""


class Attribution(YamlModel):
    """What the model leans on: the share of each feature in what moves its predictions, compared with the hold-out, without labels.

    A feature alerts when its share changed by an effect that matters, and by more than the days of the window differ. The probability of
    a false alarm is that of `drift`.
    """

    effect: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The least change of a share that matters, from 0 to 1."""
    rows: Annotated[int, Field(ge=100, le=5000)] = 500
    """How many predictions of a window are explained; of the hold-out twice as many."""


class Monitoring(YamlModel):
    """Monitoring windows, and the limits that their reports check."""

    window: Cadence = "weekly"
    """Length of a window."""
    drift: Drift = Drift()
    """When drift alerts."""
    performance: Performance = Performance()
    """When the performance alerts."""
    data_quality: DataQuality = DataQuality()
    """When the data of a window alerts."""
    groups: Groups | None = None
    """The [groups](monitoring.md#sensitive-groups) whose metrics are compared. Left out: none are."""
    attribution: Attribution | None = None
    """When [what the model leans on](monitoring.md#attribution) alerts. Left out: it is not looked at."""
    own: dict[str, dict[str, Any]] = {}
    """[Monitors of your own](extend.md#monitor): import path or name of an entry point -> parameters."""


_ENOUGH_NEW_ROWS = 1000


def _of_windows(text: str) -> str:
    found = re.fullmatch(r"([1-9]\d*) of ([1-9]\d*)", text)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError("say how many of how many windows, for example 2 of 5")
    return text


class RetrainingCosts(YamlModel):
    """What decides when a training pays: its cost, and that of the loss which it saves, in one unit."""

    training: Annotated[float, Field(gt=0)]
    """Of a training, with the work that it makes."""
    loss: Annotated[float, Field(gt=0)]
    """Of a unit of the mean loss per prediction. The loss is the negative logarithm of the probability of what happened, of a regression the
    absolute error, or the squared one where the metric is not `mean_absolute_error`."""


class Retraining(YamlModel):
    """When a solution is trained again: when enough of the last windows are bad, or the model is too old, and nothing speaks against it.

    A new version that loses more than the one before it on the same labelled rows is rolled back. `max_age` is also the age from which
    Dagster shows the model as stale.
    """

    bad_windows: Annotated[str, AfterValidator(_of_windows)] = "2 of 5"
    """How many of how many last monitoring windows of a version must be bad."""
    cooldown: Duration = "7d"
    """Span after a training date in which no other training follows, whatever came of the first; after a rollback too."""
    max_age: Duration | None = "180d"
    """Age of a model, from its training date, that is a reason by itself; none: no age is."""
    minimum_new_rows: Annotated[int, Field(ge=0)] | None = None
    """The least rows whose labels became known since the last training. Left out: a tenth of those
    that the next one would have, at most 1000."""
    roll_back: bool = True
    """Whether a version goes back to the one before it that loses less, beyond chance, on what the version predicted."""
    watch: Annotated[int, Field(ge=2)] = 6
    """For how many windows from its first on a version may be rolled back."""
    recalibrate: bool = True
    """Whether the version in service is [recalibrated](training-and-registry.md#a-recalibrated-version) when it would lose less then, beyond
    chance, and no training follows. A table without time has no rows for it."""
    forecast: bool = True
    """Whether probes, two small models in every window, tell if newer history helps. Where it pays, that is a reason to train, and where it
    does not help, a candidate replaces the version only if it is better beyond chance, or the version is older than `max_age`. A table without
    time has no newer history."""
    costs: RetrainingCosts | None = None
    """What a training and the loss cost. Left out: a training costs a tenth of the loss of a window, and must gain a fiftieth of it."""
    refused: Annotated[int, Field(ge=1)] = 2
    """After how many trainings in a row that were refused or rolled back a person is asked, and none follows by itself. A training or a
    deployment by hand begins anew, and so does `max_age` after the last one."""

    def least_new_rows(self, labelled: int) -> int:
        """The least new rows of a training that would have so many labelled ones."""
        return min(_ENOUGH_NEW_ROWS, labelled // 10) if self.minimum_new_rows is None else self.minimum_new_rows

    @property
    def minimum_bad_windows(self) -> int:
        """How many windows must be bad."""
        return int(self.bad_windows.split(" of ")[0])

    @property
    def recent_windows(self) -> int:
        """How many of the last windows are looked at."""
        return int(self.bad_windows.split(" of ")[1])
