from datetime import UTC, datetime, timedelta

from mlops_assets.operations.deployments import Deployment, deployment_at

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def deployment(version: int, since: datetime, until: datetime | None) -> Deployment:
    return Deployment(
        version=version,
        segment=None,
        since=since,
        until=until,
        training_date="2013-07-01",
        version_before=None,
        actor="anna",
        approved_by=None,
        reason="",
        gates="accepted",
        recalibration=None,
        copied_from=None,
        run_id="",
        run_url="",
    )


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


# Newest first: 1, then 2, back to 1, and 2 again.
HISTORY = [
    deployment(2, after(30), None),
    deployment(1, after(20), after(30)),
    deployment(2, after(10), after(20)),
    deployment(1, NOON, after(10)),
]


def test_a_prediction_belongs_to_the_deployment_of_its_moment() -> None:
    for version, minutes, expected in ((1, 5, NOON), (2, 15, after(10)), (1, 25, after(20)), (2, 999, after(30))):
        found = deployment_at(HISTORY, version, after(minutes))
        assert found is not None
        assert (found.version, found.since) == (version, expected)


def test_the_first_one_may_be_recorded_after_the_answer() -> None:
    assert deployment_at(HISTORY, 1, after(-0.1)) == HISTORY[-1]


def test_without_a_moment_it_is_the_newest_of_the_version() -> None:
    assert deployment_at(HISTORY, 1, None) == HISTORY[1]
    assert deployment_at(HISTORY, 3, None) is None
    assert deployment_at([], 1, after(1)) is None
