-- The airports of the source and the four that it lacks, with an IANA time zone each.
select
    faa as airport,
    name as airport_name,
    lat as latitude,
    lon as longitude,
    tzone as time_zone,
    _loaded_at
from {{ source('raw', 'airports') }}
where faa not in (select airport from {{ ref('airport_additions') }})
union all
select
    airport,
    airport_name,
    latitude,
    longitude,
    time_zone,
    (select max(_loaded_at) from {{ source('raw', 'airports') }})
from {{ ref('airport_additions') }}
