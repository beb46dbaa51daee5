"""The moment of prediction, when the label is known, and the partitions of a table with time."""

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from new_tables import decided, open_fields, propose_rows, raw_table, roles, solution

from mlops_assets.core.errors import StackError


def parcels(days: int = 60, each: int = 10, **changes: Any) -> list[dict[str, Any]]:
    """Parcels that are sent at every day, and delivered a day or two later but for the last."""
    dice = random.Random(2)
    rows = []
    for day in range(days):
        for number in range(each):
            sent = datetime(2024, 1, 1, 8, number, tzinfo=UTC) + timedelta(days=day)
            late = dice.random() < 0.4
            delivered = (sent + timedelta(hours=40 if late else 20)) if day < days - 2 else None
            row = {
                "parcel_id": f"{day}-{number}",
                "sent_at": sent.isoformat(),
                "weight": dice.random(),
                "delivered_at": delivered and delivered.isoformat(),
                "late": late if delivered else None,
            }
            rows.append(row | {name: change(row, sent) for name, change in changes.items()})
    return rows


def test_moments_and_partitions_are_found(tmp_path: Path) -> None:
    proposal = propose_rows(tmp_path, parcels(), label="late")
    written = solution(proposal)
    assert (written.spine.prediction_time, written.spine.label_time) == ("sent_at", "delivered_at")
    assert (written.spine.key, written.features[0].request) == ("parcel_id", ["weight"])
    assert open_fields(proposal) == ["time", "known_at"]
    table = raw_table(proposal)
    assert table.partitions is not None
    assert table.partitions.model_dump() == written.partitions.model_dump()
    assert (table.partitions.column, table.partitions.start, table.partitions.end) == (
        "sent_at_date",
        date(2024, 1, 1),
        date(2024, 3, 1),
    )
    assert table.columns["sent_at_date"].expression == "CAST(sent_at AS DATE)"
    assert [name for name, column in table.columns.items() if column.required] == ["parcel_id", "sent_at", "sent_at_date"]
    assert (written.training.window, written.training.holdout) == ("53d", "7d")


def test_answers_close_the_questions(tmp_path: Path) -> None:
    proposal = propose_rows(tmp_path, parcels(), label="late", time="sent_at", known_at="delivered_at")
    assert open_fields(proposal) == []


def test_without_a_time_of_the_label_a_delay_is_asked(tmp_path: Path) -> None:
    proposal = propose_rows(tmp_path, parcels(), label="late", time="sent_at", known_at="none")
    assert open_fields(proposal) == ["label_delay"]
    given = propose_rows(tmp_path, parcels(), label="late", time="sent_at", label_delay="2w")
    assert solution(given).spine.expressions == {
        "label_known_at": "CASE WHEN late IS NOT NULL THEN sent_at + INTERVAL 2 WEEK END"
    }


def test_a_date_is_a_moment_and_known_when_it_is_over(tmp_path: Path) -> None:
    rows = parcels(
        sent_at=lambda row, sent: f"{sent:%Y-%m-%d}",
        delivered_at=lambda row, sent: row["delivered_at"] and row["delivered_at"][:10],
    )
    written = solution(propose_rows(tmp_path, rows, label="late", time="sent_at"))
    assert written.partitions.column == "sent_at"
    assert written.spine.expressions == {
        "sent_at_moment": "timezone('UTC', CAST(sent_at AS TIMESTAMP))",
        "delivered_at_moment": "timezone('UTC', CAST(delivered_at AS TIMESTAMP) + INTERVAL 1 DAY)",
    }


def test_times_without_an_offset_ask_for_their_zone(tmp_path: Path) -> None:
    rows = parcels(sent_at=lambda row, sent: f"{sent:%Y-%m-%d %H:%M:%S}")
    assert "time_zone" in open_fields(propose_rows(tmp_path, rows, label="late", time="sent_at"))
    proposal = propose_rows(tmp_path, rows, label="late", time="sent_at", time_zone="Europe/Berlin")
    table = raw_table(proposal)
    assert (table.columns["sent_at_local"].type, table.columns["sent_at_local"].source) == ("timestamp", "sent_at")
    assert "computed from it" in proposal.roles["sent_at_local"].reason
    assert table.columns["sent_at"].expression == "timezone('Europe/Berlin', sent_at_local)"
    assert table.partitions is not None
    assert table.partitions.time_zone == "Europe/Berlin"
    with pytest.raises(StackError, match="is no time zone"):
        propose_rows(tmp_path, rows, label="late", time_zone="Berlin")


def test_seconds_since_1970_are_moments(tmp_path: Path) -> None:
    rows = parcels(sent_at=lambda row, sent: int(sent.timestamp()))
    written = solution(propose_rows(tmp_path, rows, label="late", time="sent_at", label_delay="1d"))
    assert written.spine.expressions["sent_at_moment"] == "make_timestamptz(CAST(1000000 * CAST(sent_at AS BIGINT) AS BIGINT))"


@pytest.mark.parametrize(
    ("days", "each", "step", "cadence"),
    [(60, 10, 1, "daily"), (60, 1, 1, "weekly"), (40, 1, 10, "monthly"), (5, 10, 400, "yearly")],
)
def test_partitions_are_as_fine_as_rows_fill_them(tmp_path: Path, days: int, each: int, step: int, cadence: str) -> None:
    start = datetime(2015, 1, 1, tzinfo=UTC)
    rows = [
        {
            "at": (start + timedelta(days=day * step, minutes=number)).isoformat(),
            "x": number + day % 7,
            "y": (day * 7 + number) % 2,
        }
        for day in range(days)
        for number in range(each)
    ]
    proposal = propose_rows(tmp_path, rows, label="y", time="at", label_delay="1d")
    assert decided(proposal)["cadence"] == cadence


def test_a_last_day_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    start = datetime(2015, 1, 1, 6, tzinfo=UTC)
    # The file was written on its 40th day, at three in the morning.
    moments = [start + timedelta(minutes=15 * number) for number in range(39 * 96 - 12)]
    rows = [{"at": moment.isoformat(), "x": number % 7, "y": (number * 5) % 2} for number, moment in enumerate(moments)]
    proposal = propose_rows(tmp_path, rows, label="y", time="at", label_delay="1d")
    [reason] = [decision.reason for decision in proposal.decisions if decision.field == "cadence"]
    assert "The last one, of 2015-02-09, has 12 rows and each of the 28 before it at least 96" in reason
    assert solution(proposal).partitions.end == date(2015, 2, 9)


def test_a_table_of_one_day_has_no_time_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="--time none"):
        propose_rows(
            tmp_path, parcels(days=1, each=50, late=lambda row, sent: int(row["weight"] > 0.5)), label="late", time="sent_at"
        )


def test_a_table_without_times_is_a_snapshot_a_day(tmp_path: Path) -> None:
    proposal = propose_rows(tmp_path, parcels(), label="late", time="none")
    assert not solution(proposal).spine.has_time
    assert raw_table(proposal).partitions is None
    assert roles(proposal, "left out") == ["delivered_at", "sent_at"]
