select
    tailnum,
    manufacture_year as aircraft_manufacture_year,
    seats as aircraft_seats,
    engines as aircraft_engines,
    aircraft_type,
    engine_type as aircraft_engine_type,
    manufacturer as aircraft_manufacturer,
    _loaded_at
from {{ ref('planes') }}
