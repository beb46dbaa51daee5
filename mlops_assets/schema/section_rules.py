"""Rules between the sections of a solution's YAML: settings that contradict each other, or that leave nothing to train or evaluate on."""

from datetime import date

from mlops_assets.schema.cadence import CADENCE_LENGTHS
from mlops_assets.schema.configuration_errors import ConfigurationError, ErrorCollector
from mlops_assets.schema.duration import Duration, add_duration, maximum_days, subtract_duration
from mlops_assets.schema.metric_names import greater_is_better, metric_bounds
from mlops_assets.schema.solution import Solution

_SHARED_SCHEMAS = ("raw", "staging", "features", "main", "information_schema", "configuration_error")
"""Names of schemas of the lake, and of asset keys, that belong to no solution."""
_GATED = ("floor", "worst_slice")


def check_sections(solution: Solution, errors: ErrorCollector) -> None:
    """Collect settings that contradict each other."""
    if solution.name in _SHARED_SCHEMAS:
        errors.add(("name",), f"{solution.name!r} is a schema that all solutions share; choose another name")
    _check_periods(solution, errors)
    _check_ranges(solution, errors)
    _check_reachable(solution, errors)
    _check_serving(solution, errors)
    if solution.deployment.needs_approval and solution.serving.canary > 0:
        message = "has a version answer that nobody approved; leave it out, or deployment.approval. `shadow` answers nobody"
        errors.add(("serving", "canary"), message)


def find_doubts(solution: Solution) -> list[ConfigurationError]:
    """Settings that are allowed and probably not meant: they have no effect, or a gate will hardly be passed."""
    gates, training = solution.gates, solution.training
    doubts = [
        ConfigurationError(
            ("gates", "floor", name),
            f"has no effect: worst_slice asks each slice for {gates.worst_slice[name]:g}, the floor of the whole is {bound:g}",
        )
        for name, bound in gates.floor.items()
        if name in gates.worst_slice and _is_stricter(name, gates.worst_slice[name], bound)
    ]
    if training.class_weight and gates.maximum_calibration_error is not None and training.calibration is None:
        message = "class_weight moves the scores away from probabilities, which maximum_calibration_error limits; add training.calibration"
        doubts.append(ConfigurationError(("training", "class_weight"), message))
    return doubts


def _check_periods(solution: Solution, errors: ErrorCollector) -> None:
    training, partitions, retraining = solution.training, solution.partitions, solution.retraining
    if not solution.spine.has_time:
        pass  # nothing of it has a length
    elif _reaches(training.holdout, training.window):
        message = (
            f"{training.holdout} is not shorter than the window of {training.window}: no row is left to train on; "
            "shorten it, or widen training.window"
        )
        errors.add(("training", "holdout"), message)
    elif partitions.end is not None and add_duration(partitions.start, training.holdout) >= partitions.end:
        message = f"{training.holdout} covers the partitions from {partitions.start} to {partitions.end}: no row is left to train on; shorten it"
        errors.add(("training", "holdout"), message)
    window = solution.monitoring.window
    if CADENCE_LENGTHS[window].fewest_days < CADENCE_LENGTHS[partitions.cadence].fewest_days:
        message = f"a {window} window is shorter than a {partitions.cadence} partition; use {partitions.cadence} or longer"
        errors.add(("monitoring", "window"), message)
    if retraining.max_age is not None and maximum_days(retraining.cooldown) > maximum_days(retraining.max_age):
        message = f"no training follows within {retraining.cooldown}, so that max_age of {retraining.max_age} has no effect; shorten one"
        errors.add(("retraining", "cooldown"), message)


def _check_ranges(solution: Solution, errors: ErrorCollector) -> None:
    ranges = {
        ("checks", "label_rate"): solution.checks.label_rate,
        ("monitoring", "data_quality", "row_count"): solution.monitoring.data_quality.row_count,
    }
    for path, bounds in ranges.items():
        if bounds is not None and bounds[0] > bounds[1]:
            errors.add(path, f"the least, {bounds[0]:g}, is above the greatest, {bounds[1]:g}")
    rate = solution.checks.label_rate
    if rate is not None and solution.problem == "binary_classification" and not all(0 <= bound <= 1 for bound in rate):
        errors.add(("checks", "label_rate"), "the rate of a binary label is between 0 and 1")


def _check_reachable(solution: Solution, errors: ErrorCollector) -> None:
    """Collect gates that no candidate can pass, and two limits of one number."""
    gates = solution.gates
    for section in _GATED:
        for name, bound in getattr(gates, section).items():
            try:
                least, greatest = metric_bounds(name)
            except ValueError:  # an unknown name is an error of its own
                continue
            limit = greatest if greater_is_better(name) else least
            if limit is not None and _is_stricter(name, bound, limit):
                errors.add(("gates", section, name), f"{name} cannot be better than {limit:g}; no model reaches {bound:g}")
    calibration = "expected_calibration_error"
    limit = gates.maximum_calibration_error
    if limit is not None and gates.floor.get(calibration, limit) != limit:
        message = f"maximum_calibration_error limits it to {limit:g} already; keep one of the two"
        errors.add(("gates", "floor", calibration), message)


def _check_serving(solution: Solution, errors: ErrorCollector) -> None:
    serving = solution.serving
    if serving.tries_challenger and not serving.online:
        field = "canary" if serving.canary else "shadow"
        errors.add(
            ("serving", field), "a challenger is tried in the online channel, which `online: false` closes; leave one of them out"
        )


def _reaches(holdout: Duration, window: Duration) -> bool:
    """Whether `holdout` is as long as `window`, in any month of a year."""
    days = (date(2023, month, 1) for month in range(1, 13))
    return any(subtract_duration(day, holdout) <= subtract_duration(day, window) for day in days)


def _is_stricter(metric: str, bound: float, other: float) -> bool:
    """Whether a value that just reaches `other` does not reach `bound`."""
    return bound > other if greater_is_better(metric) else bound < other
