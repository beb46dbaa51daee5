{# The columns together identify a row. #}
{% test unique_combination(model, columns) %}
select {{ columns | join(', ') }}, count(*) as row_count
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}


{# The condition holds for every row; unknown counts as failure. #}
{% test is_true(model, condition) %}
select * from {{ model }} where ({{ condition }}) is not true
{% endtest %}
