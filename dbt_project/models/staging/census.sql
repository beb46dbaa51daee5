-- Survey and outcome in one row; the outcome of the later years arrives in a table of its own.
select
    census.id as person_id,
    census.survey_date,
    census.agep::integer as age,
    census.schl as education,
    census.mar as marital_status,
    census.relp as relationship,
    census.dis as disability,
    census.esp as parents_employment,
    census.cit as citizenship,
    census.mig as mobility,
    census.mil as military_service,
    census.anc as ancestry,
    census.nativity as nativity,
    census.dear as hearing_difficulty,
    census.deye as vision_difficulty,
    census.drem as cognitive_difficulty,
    census.sex as sex,
    census.rac1p as race,
    coalesce(census.employed, outcomes.employed) as employed,
    case when outcomes._loaded_at > census._loaded_at then outcomes._loaded_at else census._loaded_at end as _loaded_at
from {{ source('raw', 'census') }} as census
left join {{ source('raw', 'census_outcomes') }} as outcomes on outcomes.id = census.id
where {{ mlops.in_window('census.survey_date') }}
