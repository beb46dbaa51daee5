-- One row an origin and hour (UTC): the repeated local hour at the end of daylight saving time has two.
select
    origin,
    time_hour as observed_hour,
    temp as temperature,
    dewp as dew_point,
    humid as humidity,
    wind_dir as wind_direction,
    -- The source has one wind of 1,048 mph; nothing above the strongest gust ever measured (253 mph) is a measurement.
    case when wind_speed <= 253 then wind_speed end as wind_speed,
    case when wind_gust <= 253 then wind_gust end as wind_gust,
    precip as precipitation,
    pressure,
    visib as visibility,
    weather_date,
    _loaded_at
from {{ source('raw', 'weather') }}
where {{ mlops.in_window('weather_date') }}
