{#-
  Moments are computed from scheduled time plus delay in UTC: the local times of day in the source do not say which day they are of.
-#}
with flights as (
    select
        *,
        time_hour + to_minutes(minute) as scheduled_departure_at
    from {{ source('raw', 'flights') }}
    where {{ mlops.in_window('flight_date') }}
),

localised as materialized (
    select
        flights.*,
        origin_airport.time_zone as time_zone,
        destination.time_zone as destination_time_zone,
        -- The scheduled time of arrival on the date that it was at the destination when the flight was to depart.
        (scheduled_departure_at at time zone destination.time_zone)::date::timestamp
            + to_hours(sched_arr_time // 100) + to_minutes(sched_arr_time % 100) as same_day_arrival,
        greatest(flights._loaded_at, origin_airport._loaded_at, destination._loaded_at) as loaded_at
    from flights
    left join {{ ref('airports') }} as origin_airport on origin_airport.airport = flights.origin
    left join {{ ref('airports') }} as destination on destination.airport = flights.dest
),

-- Applying a zone that differs by row is the slow part: materialized, so that it happens once a row.
same_day as materialized (
    select *, same_day_arrival at time zone destination_time_zone as same_day_arrival_at
    from localised
),

scheduled as materialized (
    select
        *,
        -- One day is added to the local time, before the zone is applied: a night may have 23 or 25 hours.
        case
            when same_day_arrival_at > scheduled_departure_at then same_day_arrival_at
            else (same_day_arrival + interval 1 day) at time zone destination_time_zone
        end as scheduled_arrival_at,
        {{ mlops.start_of_business_date('flight_date') }} as date_started_at
    from same_day
),

moments as (
    select
        *,
        scheduled_departure_at + to_minutes(dep_delay) as departed_at,
        scheduled_arrival_at + to_minutes(arr_delay) as arrived_at
    from scheduled
)

select
    concat_ws('-', flight_date::varchar, carrier, flight::varchar, origin, lpad(sched_dep_time::varchar, 4, '0')) as flight_id,
    flight_date,
    carrier,
    flight::varchar as flight_number,
    tailnum,
    origin,
    dest,
    distance,
    case when dep_delay is null then 'cancelled' when arr_delay is null then 'diverted' else 'arrived' end as status,
    scheduled_departure_at,
    flight_date::timestamp + to_hours(hour) + to_minutes(minute) as scheduled_departure_local,
    time_zone,
    departed_at,
    dep_delay as departure_delay_minutes,
    scheduled_arrival_at,
    arrived_at,
    arr_delay as arrival_delay_minutes,
    case when departed_at is not null then greatest(departed_at, date_started_at) end as departure_known_at,
    case when arrived_at is not null then greatest(arrived_at, date_started_at) end as arrival_known_at,
    loaded_at as _loaded_at
from moments
