-- An observation is known at the end of its hour: the precipitation of the source is the total of that hour.
select
    origin,
    observed_hour + interval 1 hour as event_timestamp,
    temperature as weather_temperature,
    dew_point as weather_dew_point,
    humidity as weather_humidity,
    wind_direction::double as weather_wind_direction,
    wind_speed as weather_wind_speed,
    wind_gust as weather_wind_gust,
    precipitation as weather_precipitation,
    pressure as weather_pressure,
    visibility as weather_visibility,
    {{ mlops.business_date('observed_hour + interval 1 hour') }} as event_date,
    _loaded_at
from {{ ref('weather') }}
where {{ mlops.in_window('weather_date', history_days=1) }} and {{ mlops.in_window('event_date') }}
