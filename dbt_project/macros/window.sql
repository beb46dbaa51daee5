{#
  The window of dates that one dbt call computes, from dbt's own `--event-time-start` and `--event-time-end`
  (end exclusive). Those flags, unlike `--vars`, do not make dbt parse the project again. Without them the window is everything.
#}
{% macro window_bounds() %}
  {% set start = invocation_args_dict.get('event_time_start') %}
  {% set end = invocation_args_dict.get('event_time_end') %}
  {% if start and end %}
    {{ return({'start': start.strftime('%Y-%m-%d'), 'end': end.strftime('%Y-%m-%d')}) }}
  {% endif %}
  {{ return(none) }}
{% endmacro %}


{# SQL: `column` (DATE) lies in the window, or in the `history_days` before it. Literal dates, so that DuckLake skips files. #}
{% macro in_window(column, history_days=0) -%}
  {%- set bounds = window_bounds() -%}
  {%- if bounds is none -%}
    true
  {%- else -%}
    {{ column }} >= date '{{ bounds.start }}' - {{ history_days }} and {{ column }} < date '{{ bounds.end }}'
  {%- endif -%}
{%- endmacro %}


{# SQL: the business date (DATE) of a moment (TIMESTAMPTZ). #}
{% macro business_date(moment) -%}
  (({{ moment }}) at time zone '{{ var("business_time_zone") }}')::date
{%- endmacro %}


{# SQL: the moment (TIMESTAMPTZ) at which a business date (DATE) starts. #}
{% macro start_of_business_date(date) -%}
  (({{ date }})::timestamp at time zone '{{ var("business_time_zone") }}')
{%- endmacro %}


{#
  Incremental strategy `replace_window`: delete the window's rows, insert the new ones, in one transaction. dbt's `delete+insert`
  deletes only the keys that the new rows contain, so a date that has become empty would keep its old rows.
  The model names its partition column (DATE) in `meta.partition_column`.
#}
{% macro get_incremental_replace_window_sql(arguments) %}
  {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) -%}
  {%- set partition_column = config.get('meta', {}).get('partition_column') -%}
  {%- if not partition_column -%}
    {% do exceptions.raise_compiler_error(model.name ~ ': an incremental model needs meta.partition_column in its .yml file.') %}
  {%- endif -%}
  delete from {{ arguments.target_relation }} where {{ in_window(partition_column) }};
  insert into {{ arguments.target_relation }} ({{ columns }})
  select {{ columns }} from {{ arguments.temp_relation }}
{% endmacro %}


{#
  The rows that a data test reads: its own `where`, else the window of the tested model, so that testing one day costs one day.
#}
{% macro get_where_subquery(relation) -%}
  {%- set where = config.get('where', '') -%}
  {%- if not where and execute and window_bounds() is not none -%}
    {%- set node = graph.nodes.get(model.attached_node, {}) -%}
    {%- set partition_column = node.get('config', {}).get('meta', {}).get('partition_column') -%}
    {%- if partition_column and node.get('relation_name') == relation | string -%}
      {%- set where = in_window(partition_column) -%}
    {%- endif -%}
  {%- endif -%}
  {%- if where -%}
    (select * from {{ relation }} where {{ where }}) dbt_subquery
  {%- else -%}
    {{ relation }}
  {%- endif -%}
{%- endmacro %}
