select
    person_id,
    survey_date,
    {{ mlops.start_of_business_date('survey_date') }} as predicted_at,
    employed,
    {{ mlops.start_of_business_date('(survey_date + interval 1 year)::date') }} - interval 1 second as outcome_at,
    _loaded_at
from {{ ref('census') }}
where {{ mlops.in_window('survey_date') }}
