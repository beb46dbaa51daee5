{#
  Arrival-delay history of an entity over the last 7 and 28 days, as it was known at each `event_timestamp`.

  A row at moment T counts the arrivals with `arrival_known_at` in (T - 7 days, T] and (T - 28 days, T]: windows are relative to the
  row's `event_timestamp`. Rows appear at the end of each hour in which something arrived and, with `daily`, also at the start
  of each business date until one row says that nothing arrived for 28 days: no row in use is then older than a day.
  Sums are integers until the last division, so the result does not depend on how many days one call computes.

  entity: columns of staging.flights · prefix: of the feature names · daily: see above
#}
{% macro delay_history(entity, prefix, daily) %}
{%- set keys = entity | join(', ') -%}
{%- set bounds = mlops.window_bounds() -%}
with arrivals as (
    select
        {{ keys }},
        (epoch(arrival_known_at)::bigint + 3599) // 3600 as hour_number,
        arrival_delay_minutes,
        flight_date,
        _loaded_at
    from {{ ref('flights') }}
    where {{ mlops.in_window('flight_date', history_days=32) }}
      and status = 'arrived'
      {%- for key in entity %} and {{ key }} is not null{% endfor %}
),

hourly as (
    select
        {{ keys }},
        hour_number,
        count(*) as arrivals,
        sum(arrival_delay_minutes) as delay_minutes,
        count(*) filter (where arrival_delay_minutes > 15) as late_arrivals,
        max(_loaded_at) as _loaded_at
    from arrivals
    group by all
    {%- if daily %}
    union all
    select
        {{ keys }},
        epoch({{ mlops.start_of_business_date('day') }})::bigint // 3600 as hour_number,
        0, 0, 0, null
    from (select distinct {{ keys }} from arrivals)
    cross join (
        select unnest(generate_series(
            {%- if bounds is none %}
            (select min(flight_date) from arrivals)::timestamp, (select max(flight_date) from arrivals)::timestamp,
            {%- else %}
            timestamp '{{ bounds.start }}', timestamp '{{ bounds.end }}' - interval 1 day,
            {%- endif %}
            interval 1 day
        ))::date as day
    )
    {%- endif %}
),

combined as (
    select
        {{ keys }},
        hour_number,
        sum(arrivals) as arrivals,
        sum(delay_minutes) as delay_minutes,
        sum(late_arrivals) as late_arrivals,
        max(_loaded_at) as _loaded_at
    from hourly
    group by all
),

windowed as (
    select
        {{ keys }},
        to_timestamp(hour_number * 3600) as event_timestamp,
        sum(arrivals) over week as arrivals_7d,
        sum(delay_minutes) over week as delay_minutes_7d,
        sum(late_arrivals) over week as late_arrivals_7d,
        sum(arrivals) over four_weeks as arrivals_28d,
        sum(delay_minutes) over four_weeks as delay_minutes_28d,
        sum(late_arrivals) over four_weeks as late_arrivals_28d,
        sum(arrivals) over just_ended as arrivals_29d,
        max(_loaded_at) over just_ended as _loaded_at
    from combined
    window
        week as (partition by {{ keys }} order by hour_number range between 167 preceding and current row),
        four_weeks as (partition by {{ keys }} order by hour_number range between 671 preceding and current row),
        just_ended as (partition by {{ keys }} order by hour_number range between 695 preceding and current row)
)

select
    {{ keys }},
    event_timestamp,
    arrivals_7d::integer as {{ prefix }}_arrivals_7d,
    delay_minutes_7d::double / nullif(arrivals_7d, 0) as {{ prefix }}_mean_delay_7d,
    late_arrivals_7d::double / nullif(arrivals_7d, 0) as {{ prefix }}_late_rate_7d,
    arrivals_28d::integer as {{ prefix }}_arrivals_28d,
    delay_minutes_28d::double / nullif(arrivals_28d, 0) as {{ prefix }}_mean_delay_28d,
    late_arrivals_28d::double / nullif(arrivals_28d, 0) as {{ prefix }}_late_rate_28d,
    {{ mlops.business_date('event_timestamp') }} as event_date,
    _loaded_at
from windowed
where arrivals_29d > 0 and {{ mlops.in_window('event_date') }}
{% endmacro %}
