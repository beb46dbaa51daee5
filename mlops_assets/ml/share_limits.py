"""The share of a window's rows beyond which chance is no explanation: the binomial test, as exact for forty rows as for a million."""


def share_limit(allowed: float, rows: int, false_alarms: float) -> float:
    """The greatest share of `rows` that chance explains when `allowed` is the share in the long run; never less than `allowed`.

    A window whose share is `allowed` passes it with the probability `false_alarms` at most.
    """
    from scipy.stats import binom

    return max(allowed, float(binom.isf(false_alarms, rows, min(allowed, 1.0))) / rows)
