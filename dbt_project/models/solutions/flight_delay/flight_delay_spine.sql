with flights as (
    select * from {{ ref('flights') }} where {{ mlops.in_window('flight_date') }}
),

dates as (
    select
        flight_date,
        min(abs(flight_date - holiday))::integer as days_to_nearest_holiday
    from (select distinct flight_date from flights)
    cross join {{ ref('us_federal_holidays') }}
    group by flight_date
)

select
    flight_id,
    flight_date,
    scheduled_departure_at - interval 2 hour as predicted_at,
    carrier,
    flight_number,
    tailnum,
    origin,
    dest,
    hour(scheduled_departure_local)::integer as scheduled_hour,
    (hour(scheduled_departure_local) * 60 + minute(scheduled_departure_local))::integer as scheduled_minute_of_day,
    isodow(flight_date)::integer as day_of_week,
    month(flight_date)::integer as month,
    dayofyear(flight_date)::integer as day_of_year,
    distance,
    (epoch(scheduled_arrival_at - scheduled_departure_at) // 60)::integer as scheduled_duration_minutes,
    count(*) over (partition by origin, flight_date, hour(scheduled_departure_local))::integer as scheduled_departures_same_hour,
    days_to_nearest_holiday,
    case when status = 'arrived' then (arrival_delay_minutes > 15)::integer end as is_late,
    arrived_at,
    status,
    _loaded_at
from flights
join dates using (flight_date)
