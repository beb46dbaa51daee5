"""Deliveries that are as they should be, made up with what business brings: none is stopped. Beside them faults in the same data."""

from collections.abc import Callable
from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from mlops_assets.schema.source import DeliveryComparison
from mlops_assets.sources.deliveries import compare_delivery
from mlops_assets.sources.delivery_findings import DeliveryFinding
from mlops_assets.sources.delivery_profiles import profile_delivery

FIRST, DAYS = date(2024, 10, 1), 98
DATES = [FIRST + timedelta(days=number) for number in range(DAYS)]
HOLIDAYS = {date(2024, 11, 1), date(2024, 12, 25), date(2024, 12, 26), date(2025, 1, 1)}
BLACK_FRIDAY = date(2024, 11, 29)
SQL_TYPES = {"int64": "bigint", "float64": "double"}
PRICES = np.array([199, 299, 499, 999, 1499, 1999, 2999, 4999, 9900, 450, 120, 780, 1120])


def orders(day: date, random: np.random.Generator) -> pd.DataFrame:
    """Growth of 3 % a week, quiet weekends and holidays, prices that rise each week, a store that opens, a campaign a week."""
    week = (day - FIRST).days // 7
    usual = 400 * 1.03**week * {5: 0.8, 6: 0.4}.get(day.weekday(), 1) * (0.3 if day in HOLIDAYS else 1)
    count = random.poisson(usual * (2.2 if day == BLACK_FRIDAY else 1))
    stores, shares = ["A", "B", "C", "NEW"], np.array([0.4, 0.25, 0.15, 0.2 if day >= date(2024, 11, 18) else 0])
    cents = np.round(random.choice(PRICES, count) * 1.01**week).astype(int)
    pieces = 1 + random.poisson(0.5, count)
    return pd.DataFrame(
        {
            "number": (day - FIRST).days * 5000 + np.arange(count),
            "store": random.choice(stores, count, p=shares / shares.sum()),
            "cents": cents,
            "total": np.round(cents * pieces / 100, 2),
            "pieces": pieces,
            "express": (random.random(count) < (0.1 if day.weekday() < 5 else 0.3)).astype(int),
            "campaign": np.where(random.random(count) < 0.55, f"week {day.isocalendar().week}", "none"),
        }
    )


def claims(day: date, random: np.random.Generator) -> pd.DataFrame:
    """Heavy-tailed amounts; many on Mondays, few at weekends; two days of storm."""
    storm = day in (date(2024, 11, 14), date(2024, 11, 15))
    usual = {0: 140, 5: 35, 6: 25}.get(day.weekday(), 100) * (0.3 if day in HOLIDAYS else 2.5 if storm else 1)
    count = max(random.poisson(usual), 1)
    amounts = 500 * (random.pareto(1.2, count) + 1)
    return pd.DataFrame(
        {
            "kind": random.choice(["car", "home", "travel"], count, p=[0.3, 0.6, 0.1] if storm else [0.6, 0.25, 0.15]),
            "amount": np.round(amounts, 2),
            "reserve": np.round(100 * amounts * random.uniform(0.5, 1.5, count)).astype(int),
            "fraud": (random.random(count) < 0.01).astype(int),
        }
    )


def spare_parts(day: date, random: np.random.Generator) -> pd.DataFrame:
    """Few orders, most of one piece, of 400 parts; nearly none at weekends."""
    count = max(random.poisson(25 * {5: 0.3, 6: 0.1}.get(day.weekday(), 1)), 1)
    return pd.DataFrame(
        {
            "part": random.choice([f"P{number}" for number in range(400)], count),
            "pieces": np.where(random.random(count) < 0.6, 1, random.geometric(0.1, count)),
            "returned": np.where(random.random(count) < 0.9, 0, random.poisson(3, count)),
        }
    )


def meters(day: date, random: np.random.Generator) -> pd.DataFrame:
    """40 meters every hour into winter, with an hour more in the night of 27 October; counters that only rise."""
    hours = np.arange(25 if day == date(2024, 10, 27) else 24)
    meter, hour = np.repeat(np.arange(40), len(hours)), np.tile(hours, 40)
    number = (day - FIRST).days
    load = (1 + meter % 7) * (1.5 + np.sin(hour / 4)) * (1 + number / 100) * (1.2 if day.weekday() >= 5 else 1)
    return pd.DataFrame(
        {
            "epoch": 1_727_740_800 + 86_400 * number + 3600 * hour,
            "kwh": np.round(load * random.lognormal(0, 0.2, len(load)), 3),
            "counter": np.round(1000.0 * (1 + meter) + 20 * number + hour, 1),
        }
    )


def sensors(day: date, random: np.random.Generator) -> pd.DataFrame:
    """Few rows of many columns around zero, whose values never repeat: among thousands of comparisons some look like a unit by chance."""
    return pd.DataFrame(random.normal(size=(20, 20)).round(6)).add_prefix("sensor_")


Frame = Callable[[date, np.random.Generator], pd.DataFrame]


def findings(frame: Frame, change: Callable[[pd.DataFrame], pd.DataFrame] | None = None) -> list[DeliveryFinding]:
    """The findings in all days, or in the last day after `change`."""
    random = np.random.default_rng(1)
    frames = [frame(day, random).assign(day=day) for day in DATES]
    if change is not None:
        frames[-1] = change(frames[-1])
    rows = pd.concat(frames[-29:] if change else frames, ignore_index=True)
    connection = duckdb.connect()
    connection.register("rows_read", rows)
    connection.execute("CREATE TABLE accepted AS FROM rows_read; ALTER TABLE accepted ALTER day TYPE DATE")
    profiles = profile_delivery(
        connection,
        relation="accepted",
        types={str(name): SQL_TYPES.get(str(kind), "varchar") for name, kind in rows.dtypes.items() if name != "day"},
        partition_column="day",
        keys=[str(day) for day in DATES],
        end=DATES[-1] + timedelta(days=1),
    )
    found = compare_delivery(profiles, [], DeliveryComparison())
    return [each for each in found if each.partition == DATES[-1]] if change else found


@pytest.mark.parametrize("frame", [orders, claims, spare_parts, meters, sensors])
def test_seasons_growth_prices_and_openings_stop_nothing(frame: Frame) -> None:
    assert [str(finding) for finding in findings(frame) if finding.is_gross] == []


@pytest.mark.parametrize(
    ("frame", "change", "kind"),
    [
        (orders, lambda rows: rows.assign(cents=(rows.cents / 100).round(2)), "unit"),
        (orders, lambda rows: rows.assign(store=rows.store.str.lower()), "categories"),
        (orders, lambda rows: rows.assign(number=rows.number - 1_000_000), "distribution"),
        (meters, lambda rows: rows.assign(kwh=rows.kwh * 1000), "unit"),
        (meters, lambda rows: rows.assign(epoch=rows.epoch * 1000), "unit"),
        (meters, lambda rows: rows[::2], "rows"),
    ],
)
def test_a_fault_in_the_same_data_stops_the_delivery(
    frame: Frame, change: Callable[[pd.DataFrame], pd.DataFrame], kind: str
) -> None:
    assert kind in {finding.kind for finding in findings(frame, change) if finding.is_gross}


def test_half_of_a_weekday_is_noticed_where_sundays_have_less() -> None:
    """A holiday may be like that: it is no reason to stop."""
    [found] = [finding for finding in findings(orders, lambda rows: rows[::2]) if finding.kind == "rows"]
    assert (found.is_gross, "a usual Monday has" in found.text) == (False, True)
