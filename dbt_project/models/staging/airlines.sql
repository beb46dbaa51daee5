select carrier, name as carrier_name, _loaded_at from {{ source('raw', 'airlines') }}
