select
    tailnum,
    year as manufacture_year,
    type as aircraft_type,
    manufacturer,
    model,
    engines,
    seats,
    engine as engine_type,
    _loaded_at
from {{ source('raw', 'planes') }}
