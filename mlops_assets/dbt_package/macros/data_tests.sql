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


{#
  A row of `table` happened on the date of its `partition`, or at most `days` after it: a feature view looks for what happened in the
  last days in the partitions of those days. `time` is the column (TIMESTAMPTZ) of when it happened.
#}
{% test happens_within(model, table, time, partition, days, time_zone) %}
select {{ time }}, {{ partition }}
from {{ table }}
where {{ mlops.in_window(partition) }}
  and {{ time }} is not null
  and ({{ time }} at time zone '{{ time_zone }}')::date not between {{ partition }} and {{ partition }} + {{ days }}
{% endtest %}
