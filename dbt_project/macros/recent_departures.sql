{#
  What departures of an entity said during the last three hours, as it was known at each `event_timestamp`, on a grid of 15 minutes.

  A row at moment T counts the flights with `departure_known_at` in (T - 3 h, T], and the overdue ones: scheduled at T - 3 h
  or later, at least 15 minutes ago, and not known to have departed. A cancelled flight is overdue like any other: when it was cancelled
  is not recorded, that it had not departed is. Rows exist while there is something to count, and one step longer with zero counts.

  entity: columns of staging.flights · prefix: of the feature names
#}
{% macro recent_departures(entity, prefix) %}
{%- set keys = entity | join(', ') -%}
with flights as (
    select
        {{ keys }},
        epoch(scheduled_departure_at)::bigint as scheduled_second,
        epoch(departure_known_at)::bigint as known_second,
        departure_delay_minutes,
        _loaded_at
    from {{ ref('flights') }}
    where {{ mlops.in_window('flight_date', history_days=3) }}
),

departed as (
    select
        {{ keys }},
        unnest(range((known_second + 899) // 900, (known_second + 3 * 3600 + 899) // 900 + 1)) as step,
        known_second,
        departure_delay_minutes,
        _loaded_at
    from flights
    where known_second is not null
),

waiting as (
    select
        {{ keys }},
        scheduled_second,
        scheduled_second + 900 as overdue_from,
        least(coalesce(known_second, scheduled_second + 3 * 3600 + 1), scheduled_second + 3 * 3600 + 1) as overdue_until,
        _loaded_at
    from flights
),

overdue as (
    select
        {{ keys }},
        unnest(range((overdue_from + 899) // 900, (overdue_until + 899) // 900 + 1)) as step,
        scheduled_second,
        overdue_until,
        _loaded_at
    from waiting
    where overdue_until > overdue_from
),

observations as (
    select
        {{ keys }},
        step,
        (step * 900 < known_second + 3 * 3600)::integer as departures,
        case when step * 900 < known_second + 3 * 3600 then departure_delay_minutes else 0 end as delay_minutes,
        (step * 900 < known_second + 3 * 3600 and departure_delay_minutes > 15)::integer as late_departures,
        (step * 900 < known_second + 3600)::integer as departures_last_hour,
        case when step * 900 < known_second + 3600 then departure_delay_minutes else 0 end as delay_minutes_last_hour,
        0 as overdue,
        0 as overdue_minutes,
        _loaded_at
    from departed
    union all
    select
        {{ keys }},
        step,
        0, 0, 0, 0, 0,
        (step * 900 < overdue_until)::integer,
        case when step * 900 < overdue_until then (step * 900 - scheduled_second) // 60 else 0 end,
        _loaded_at
    from overdue
),

summed as (
    select
        {{ keys }},
        to_timestamp(step * 900) as event_timestamp,
        sum(departures)::integer as departures,
        sum(delay_minutes)::double as delay_minutes,
        sum(late_departures)::double as late_departures,
        sum(departures_last_hour)::integer as departures_last_hour,
        sum(delay_minutes_last_hour)::double as delay_minutes_last_hour,
        sum(overdue)::integer as overdue,
        sum(overdue_minutes)::double as overdue_minutes,
        max(_loaded_at) as _loaded_at
    from observations
    group by all
)

select
    {{ keys }},
    event_timestamp,
    departures as {{ prefix }}_departures_3h,
    delay_minutes / nullif(departures, 0) as {{ prefix }}_mean_departure_delay_3h,
    late_departures / nullif(departures, 0) as {{ prefix }}_late_departure_rate_3h,
    delay_minutes_last_hour / nullif(departures_last_hour, 0) as {{ prefix }}_mean_departure_delay_1h,
    overdue as {{ prefix }}_overdue_departures,
    overdue_minutes / nullif(overdue, 0) as {{ prefix }}_mean_overdue_minutes,
    {{ mlops.business_date('event_timestamp') }} as event_date,
    _loaded_at
from summed
where {{ mlops.in_window('event_date') }}
{% endmacro %}
