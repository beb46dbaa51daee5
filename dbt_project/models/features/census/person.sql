select
    person_id,
    {{ mlops.start_of_business_date('survey_date') }} as event_timestamp,
    age, education, marital_status, relationship, disability, parents_employment, citizenship, mobility, military_service, ancestry,
    nativity, hearing_difficulty, vision_difficulty, cognitive_difficulty, sex, race,
    survey_date as event_date,
    _loaded_at
from {{ ref('census') }}
where {{ mlops.in_window('survey_date') }}
