{#- A row at each arrival and departure of an aircraft: the last leg that arrived and the last that departed, within 28 days before. -#}
with legs as (
    select *
    from {{ ref('flights') }}
    where {{ mlops.in_window('flight_date', history_days=32) }} and tailnum is not null
),

events as (
    select
        tailnum,
        arrival_known_at as event_timestamp,
        {'at': arrived_at, 'flight_id': flight_id, 'delay': arrival_delay_minutes} as arrival,
        null as departure,
        _loaded_at
    from legs
    where arrival_known_at is not null
    union all
    select
        tailnum,
        departure_known_at,
        null,
        {'at': departed_at, 'flight_id': flight_id, 'delay': departure_delay_minutes, 'arrives_at': scheduled_arrival_at},
        _loaded_at
    from legs
    where departure_known_at is not null
),

moments as (
    select
        tailnum,
        event_timestamp,
        epoch(event_timestamp)::bigint as event_second,
        max(arrival) as arrival,
        max(departure) as departure,
        max(_loaded_at) as _loaded_at
    from events
    group by all
),

latest as (
    select
        tailnum,
        event_timestamp,
        last_value(arrival ignore nulls) over recent as arrival,
        last_value(departure ignore nulls) over recent as departure,
        max(_loaded_at) over recent as _loaded_at
    from moments
    window recent as (
        partition by tailnum order by event_second range between 28 * 86400 - 1 preceding and current row
    )
)

select
    tailnum,
    event_timestamp,
    arrival.delay as previous_leg_arrival_delay,
    departure.delay as previous_leg_departure_delay,
    (departure.flight_id is not null and departure.flight_id is distinct from arrival.flight_id)::integer as previous_leg_under_way,
    {{ mlops.business_date('event_timestamp') }} as event_date,
    _loaded_at
from latest
where {{ mlops.in_window('event_date') }}
