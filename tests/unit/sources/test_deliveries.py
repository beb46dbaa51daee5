"""Deliveries of real flights and weather beside those before them: what is ordinary passes, what is another unit or another column does not."""

import dataclasses
from collections.abc import Mapping
from datetime import date, timedelta

import duckdb
import pytest

from mlops_assets.operations.table_schemas import raw_table
from mlops_assets.schema.source import DeliveryComparison, RawTable
from mlops_assets.sources.deliveries import compare_delivery
from mlops_assets.sources.delivery_findings import DeliveryFinding
from mlops_assets.sources.delivery_profiles import ColumnProfile, profile_delivery
from mlops_assets.sources.reader import PARSED, REASON, DateRange, parse

RULES = DeliveryComparison()
FIRST, LAST = date(2013, 1, 1), date(2013, 3, 12)
"""The winter with two snow storms: on 9 February 57 % of the flights were cancelled."""


class Year:
    """The accepted rows of one raw table, and their profiles."""

    def __init__(self, name: str):
        self.table: RawTable
        self.table, directory = raw_table(name)
        assert self.table.partitions is not None
        self.column = self.table.partitions.column
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        window = DateRange(self.column, FIRST, LAST + timedelta(days=1))
        with parse(self.connection, self.table, directory=directory, window=window, own_files=self.table.files):
            self.connection.execute(f"CREATE TABLE accepted AS FROM {PARSED} WHERE {REASON} IS NULL")
        self.profiles = self.profile("accepted", FIRST, LAST)

    def profile(self, relation: str, first: date, last: date) -> list[ColumnProfile]:
        keys = [str(first + timedelta(days=day)) for day in range((last - first).days + 1)]
        return profile_delivery(
            self.connection,
            relation=relation,
            types={name: column.type for name, column in self.table.columns.items() if name != self.column},
            partition_column=self.column,
            keys=keys,
            end=last + timedelta(days=1),
        )

    def deliver(self, day: date, *, where: str = "true", **changes: str) -> list[DeliveryFinding]:
        """The findings in the rows of `day`, with columns replaced by SQL expressions of `changes`."""
        replaced = f"REPLACE ({', '.join(f'{sql} AS {name}' for name, sql in changes.items())})" if changes else ""
        relation = f"(SELECT * {replaced} FROM accepted WHERE {self.column} = DATE '{day}' AND {where})"
        before = [profile for profile in self.profiles if day - timedelta(days=28) <= profile.partition < day]
        return compare_delivery(self.profile(relation, day, day), before, RULES)


@pytest.fixture(scope="module")
def years() -> Mapping[str, Year]:
    return {name: Year(name) for name in ("flights", "weather")}


def test_an_ordinary_winter_is_not_blocked(years: Mapping[str, Year]) -> None:
    for year, notable in ((years["flights"], 3), (years["weather"], 9)):
        findings = compare_delivery(year.profiles, [], RULES)
        assert not [str(finding) for finding in findings if finding.is_gross]
        assert len({finding.partition for finding in findings}) <= notable


@pytest.mark.parametrize("day", [date(2013, 2, 20), LAST])
@pytest.mark.parametrize(
    ("table", "changes", "kind"),
    [
        ("flights", {"dep_delay": "dep_delay / 60.0"}, "unit"),
        ("flights", {"dep_delay": "round(dep_delay / 60.0)"}, "unit"),
        ("flights", {"time_hour": "time_hour + INTERVAL 1 YEAR"}, "distribution"),
        ("flights", {"origin": "dest", "dest": "origin"}, "categories"),
        ("flights", {"tailnum": "CASE WHEN flight % 2 = 0 THEN tailnum END"}, "missing"),
        ("flights", {"carrier": "lower(carrier)"}, "categories"),
        ("flights", {"carrier": "CASE WHEN carrier = 'UA' THEN 'United' ELSE carrier END"}, "categories"),
        ("flights", {"where": "flight % 2 = 0"}, "rows"),
        ("weather", {"temp": "(temp - 32) * 5 / 9"}, "unit"),
        ("weather", {"wind_speed": "round(wind_speed * 1.609344, 1)"}, "unit"),
        ("weather", {"pressure": "pressure * 0.02953"}, "unit"),
        ("weather", {"time_hour": "time_hour + INTERVAL 1 YEAR"}, "distribution"),
    ],
)
def test_a_gross_fault_is_blocked_with_its_kind(
    years: Mapping[str, Year], day: date, table: str, changes: dict[str, str], kind: str
) -> None:
    assert not [finding for finding in years[table].deliver(day) if finding.is_gross]
    assert kind in {finding.kind for finding in years[table].deliver(day, **changes) if finding.is_gross}


def test_columns_that_hold_what_only_the_other_had_are_swapped(years: Mapping[str, Year]) -> None:
    """Though each value is within the usual range of its column."""
    found = years["weather"].deliver(date(2013, 2, 20), temp="humid", humid="temp")
    assert [(finding.kind, finding.column) for finding in found if finding.is_gross] == [("swapped", "humid")]


def flags(shares: Mapping[int, float], *, rows: int = 500) -> list[DeliveryFinding]:
    """The findings in the last day of a column of zeros and ones; `shares` are those of the ones, by day of January."""
    connection = duckdb.connect()
    connection.execute("CREATE TABLE accepted (day DATE, flag INTEGER)")
    for day, share in shares.items():
        connection.execute(
            f"INSERT INTO accepted SELECT DATE '2024-01-01' + {day}, (number < {share * rows})::INTEGER FROM range({rows}) n(number)"
        )
    first, last = date(2024, 1, 1) + timedelta(days=min(shares)), date(2024, 1, 1) + timedelta(days=max(shares))
    profiles = profile_delivery(
        connection,
        relation="accepted",
        types={"flag": "integer"},
        partition_column="day",
        keys=[str(first + timedelta(days=number)) for number in range((last - first).days + 1)],
        end=last + timedelta(days=1),
    )
    return [finding for finding in compare_delivery(profiles, [], RULES) if finding.partition == last]


USUAL = {day: 0.05 + 0.01 * (day % 4) for day in range(10)}


@pytest.mark.parametrize(("share", "blocked"), [(0.03, False), (0.08, False), (0.12, False), (0.93, True), (1.0, True)])
def test_a_rare_flag_is_compared_by_its_share(share: float, blocked: bool) -> None:
    """Its quantiles jump from 0 to 1 where the rate passes five per cent."""
    assert [finding.kind for finding in flags({**USUAL, 10: share}) if finding.is_gross] == ["categories"] * blocked


def test_few_rows_by_chance_are_no_finding() -> None:
    small = [
        ColumnProfile(date(2024, 1, 1 + day), "x", "text", rows, rows, None, None)
        for day, rows in enumerate([9, 7, 12, 5, 8, 9, 6, 10])
    ]
    last = ColumnProfile(date(2024, 1, 9), "x", "text", 3, 3, None, None)
    assert compare_delivery([last], small, RULES) == []


def test_a_gross_partition_is_no_reference_for_the_next(years: Mapping[str, Year]) -> None:
    year = years["flights"]
    wrong = year.profile(
        "(SELECT * REPLACE (dep_delay / 60.0 AS dep_delay) FROM accepted WHERE month = 3)", date(2013, 3, 1), LAST
    )
    before = [profile for profile in year.profiles if profile.partition < date(2013, 3, 1)]
    gross = {finding.partition for finding in compare_delivery(wrong, before, RULES) if finding.is_gross}
    assert gross == {date(2013, 3, number) for number in range(1, 13)}


@pytest.mark.parametrize(("known", "blocked"), [(0, False), (30, True)])
def test_a_file_may_lack_an_optional_column_but_not_half_of_its_values(known: int, blocked: bool) -> None:
    days = [ColumnProfile(date(2024, 1, 1) + timedelta(days=day), "x", "text", 60, 60, None, None) for day in range(8)]
    last = dataclasses.replace(days[-1], known=known)
    [optional] = compare_delivery([last], days[:-1], RULES, ["x"])
    assert (optional.kind, optional.is_gross) == ("missing", blocked)
    [needed] = compare_delivery([last], days[:-1], RULES)
    assert needed.is_gross


def test_an_ignored_column_and_a_short_history_are_not_compared(years: Mapping[str, Year]) -> None:
    year = years["flights"]
    wrong = year.profile(f"(SELECT * REPLACE ('x' AS carrier) FROM accepted WHERE flight_date = DATE '{LAST}')", LAST, LAST)
    before = [profile for profile in year.profiles if profile.partition < LAST]
    assert "carrier" in {finding.column for finding in compare_delivery(wrong, before, RULES)}
    ignoring = RULES.model_copy(update={"ignore": ["carrier"]})
    assert "carrier" not in {finding.column for finding in compare_delivery(wrong, before, ignoring)}
    short = [profile for profile in before if profile.partition >= LAST - timedelta(days=6)]
    assert compare_delivery(wrong, short, RULES) == []


@pytest.mark.parametrize("known", [0, 30])
def test_what_is_awaited_may_be_missing_and_is_told(known: int) -> None:
    days = [ColumnProfile(date(2024, 1, 1) + timedelta(days=day), "label", "text", 60, 60, None, None) for day in range(8)]
    last = dataclasses.replace(days[-1], known=known)
    [finding] = compare_delivery([last], days[:-1], RULES.model_copy(update={"awaited": ["label"]}))
    assert (finding.kind, finding.is_gross) == ("missing", False)
