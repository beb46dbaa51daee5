select
    flight_id,
    flight_date,
    scheduled_departure_at - interval 2 hour as predicted_at,
    carrier,
    flight_number,
    tailnum,
    origin,
    dest,
    (hour(scheduled_departure_local) * 60 + minute(scheduled_departure_local))::integer as scheduled_minute_of_day,
    isodow(flight_date)::integer as day_of_week,
    distance,
    (epoch(scheduled_arrival_at - scheduled_departure_at) // 60)::integer as scheduled_duration_minutes,
    arrival_delay_minutes,
    arrived_at,
    _loaded_at
from {{ ref('flights') }}
where {{ mlops.in_window('flight_date') }}
