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


{#
  SQL: `column` (DATE) lies in the window, or in the `history_days` before it. Literal dates, so that DuckLake skips files.
  A table or view is no partition: it is built whole, also in a call that computes a window of other models.
#}
{% macro in_window(column, history_days=0) -%}
  {%- set bounds = mlops.window_bounds() -%}
  {%- if bounds is none or (model.resource_type == 'model' and model.config.materialized in ('table', 'view')) -%}
    true
  {%- else -%}
    {{ column }} >= date '{{ bounds.start }}' - {{ history_days }} and {{ column }} < date '{{ bounds.end }}'
  {%- endif -%}
{%- endmacro %}


{#
  SQL: the days of the window as a relation with the column `column`, for a model that holds a whole table as of each of them. A call without a
  window takes no snapshot.
#}
{% macro snapshot_days(column) -%}
  {%- set bounds = mlops.window_bounds() -%}
  {%- if bounds is none -%}
    (select null::date as {{ column }} where false) snapshot_days
  {%- else -%}
    (
      select unnest(generate_series(date '{{ bounds.start }}', date '{{ bounds.end }}' - interval 1 day, interval 1 day))::date as {{ column }}
    ) snapshot_days
  {%- endif -%}
{%- endmacro %}


{# The IANA time zone of the model's dates: `meta.time_zone` of the model or of its folder in dbt_project.yml. A unit test, which has no meta, overrides it. #}
{% macro time_zone_of_model() %}
  {{ return((config.get('meta') or {}).get('time_zone') or 'UTC') }}
{% endmacro %}


{# SQL: the business date (DATE) of a moment (TIMESTAMPTZ), in the time zone of the model. #}
{% macro business_date(moment) -%}
  (({{ moment }}) at time zone '{{ mlops.time_zone_of_model() }}')::date
{%- endmacro %}


{# SQL: the moment (TIMESTAMPTZ) at which a business date (DATE) starts, in the time zone of the model. #}
{% macro start_of_business_date(date) -%}
  (({{ date }})::timestamp at time zone '{{ mlops.time_zone_of_model() }}')
{%- endmacro %}


{#
  SQL: the moments `event_timestamp` (TIMESTAMPTZ) at which each business date of the window begins, or, with every='hour', each hour of them.
  Without a window the dates are those of `time` in `relation`.
#}
{% macro moments_of_window(relation, time, every='day') -%}
  {%- set bounds = mlops.window_bounds() -%}
  {%- set date = mlops.business_date(time) -%}
  {%- set first = "date '" ~ bounds.start ~ "'" if bounds else '(select min(' ~ date ~ ') from ' ~ relation ~ ')' -%}
  {%- set last = "date '" ~ bounds.end ~ "' - 1" if bounds else '(select max(' ~ date ~ ') from ' ~ relation ~ ')' -%}
  {%- if every == 'hour' -%}
    select unnest(generate_series(
        {{ mlops.start_of_business_date(first) }},
        {{ mlops.start_of_business_date('(' ~ last ~ ') + 1') }} - interval 1 hour,
        interval 1 hour
    )) as event_timestamp
  {%- else -%}
    select {{ mlops.start_of_business_date('day') }} as event_timestamp
    from (select unnest(generate_series(({{ first }})::timestamp, ({{ last }})::timestamp, interval 1 day))::date as day)
  {%- endif -%}
{%- endmacro %}


{# The DATE column of the partitions of an incremental model. #}
{% macro partition_column_of_model() %}
  {%- set column = config.get('meta', {}).get('partition_column') -%}
  {%- if not column -%}
    {% do exceptions.raise_compiler_error(model.name ~ ': an incremental model needs meta.partition_column in its .yml file.') %}
  {%- endif -%}
  {{ return(column) }}
{% endmacro %}


{#
  The default incremental strategy: delete the window's rows, insert the new ones, in one transaction. dbt's `delete+insert`
  deletes only the keys that the new rows contain, so a date that has become empty would keep its old rows. New rows outside
  the window are refused: nothing would delete them before they are inserted again.
  The model names its partition column (DATE) in `meta.partition_column`.
#}
{% macro default__get_incremental_default_sql(arguments) %}
  {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) -%}
  {%- do mlops.require_rows_in_window(arguments.temp_relation) -%}
  delete from {{ arguments.target_relation }} where {{ mlops.in_window(mlops.partition_column_of_model()) }};
  insert into {{ arguments.target_relation }} ({{ columns }})
  select {{ columns }} from {{ arguments.temp_relation }}
{% endmacro %}


{# Raise a compiler error when rows of `relation` lie outside the window, or in no partition at all. #}
{% macro require_rows_in_window(relation) %}
  {%- set column = mlops.partition_column_of_model() -%}
  {%- set bounds = mlops.window_bounds() -%}
  {%- set inside = column ~ ' is not null' if bounds is none else mlops.in_window(column) -%}
  {%- set found = run_query(
    'select count(*), count(*) - count(' ~ column ~ '), min(' ~ column ~ '), max(' ~ column ~ ') from ' ~ relation
    ~ ' where (' ~ inside ~ ') is not true'
  ).rows[0] -%}
  {%- if found[0] > 0 -%}
    {%- set window = 'any window' if bounds is none else 'the window ' ~ bounds.start ~ '..' ~ bounds.end ~ ' (end exclusive)' -%}
    {% do exceptions.raise_compiler_error(
      found[0] ~ ' rows of ' ~ model.name ~ ' lie outside ' ~ window ~ ' of ' ~ column ~ ': ' ~ found[1] ~ ' have none'
      ~ (', the others are from ' ~ found[2] ~ ' to ' ~ found[3] if found[2] is not none else '')
      ~ '. End ' ~ model.original_file_path ~ ' with `where ' ~ '{{ mlops.in_window(\'' ~ column ~ '\') }}`, after ' ~ column
      ~ ' is computed, and read as many `history_days` of its inputs as that needs. The table is as it was.'
    ) %}
  {%- endif -%}
{% endmacro %}


{#
  Before every model: an incremental one replaces windows, which is the default strategy, and is not built from scratch by a call
  that computes a window, which would lose all other partitions.
#}
{% macro before_model() %}
  {%- if execute and config.get('materialized') == 'incremental' -%}
    {%- do mlops.partition_column_of_model() -%}
    {%- set strategy = config.get('incremental_strategy') -%}
    {%- if strategy not in (none, 'default') -%}
      {% do exceptions.raise_compiler_error(
        model.name ~ ': incremental_strategy ' ~ strategy ~ ' does not replace the window of a run exactly, so that a repeated run '
        ~ 'could double or lose rows. Remove it from ' ~ model.original_file_path ~ ' and its .yml file.'
      ) %}
    {%- endif -%}
    {%- if should_full_refresh() and mlops.window_bounds() is not none and load_relation(this) is not none -%}
      {% do exceptions.raise_compiler_error(
        model.name ~ ': a full refresh of a window would lose the rows of all other partitions. Leave out --full-refresh, '
        ~ 'or --event-time-start and --event-time-end.'
      ) %}
    {%- endif -%}
  {%- endif -%}
{% endmacro %}


{# After every model, before it is committed: the first build of an incremental one, which no strategy sees, lies in the window. #}
{% macro after_model() %}
  {%- if execute and config.get('materialized') == 'incremental' and not is_incremental() -%}
    {%- do mlops.require_rows_in_window(this) -%}
  {%- endif -%}
{% endmacro %}


{#
  The rows that a data test reads: its own `where`, else the window of the tested model, so that testing one day costs one day.
  A test of uniqueness reads the rows of the whole table that share a key with the window: a key may be doubled by another day.
#}
{% macro default__get_where_subquery(relation) -%}
  {%- set where = config.get('where', '') -%}
  {%- set node = graph.nodes.get(model.attached_node, {}) if execute else {} -%}
  {%- set column = node.get('config', {}).get('meta', {}).get('partition_column') -%}
  {%- set is_windowed = mlops.window_bounds() is not none and column and node.get('relation_name') == relation | string -%}
  {%- if where -%}
    (select * from {{ relation }} where {{ where }}) dbt_subquery
  {%- elif not is_windowed -%}
    {{ relation }}
  {%- elif not mlops.unique_columns_of_test() -%}
    (select * from {{ relation }} where {{ mlops.in_window(column) }}) dbt_subquery
  {%- else -%}
    (
      select whole.* from {{ relation }} whole
      semi join (select * from {{ relation }} where {{ mlops.in_window(column) }}) part
      on {% for key in mlops.unique_columns_of_test() -%}
        whole.{{ key }} is not distinct from part.{{ key }}{{ ' and ' if not loop.last }}
      {%- endfor %}
    ) dbt_subquery
  {%- endif -%}
{%- endmacro %}


{# The columns that the current data test holds for unique; none for a test of another kind. #}
{% macro unique_columns_of_test() %}
  {%- set test = model.get('test_metadata') or {} -%}
  {%- set arguments = test.get('kwargs', {}) -%}
  {%- if not test.get('name', '').startswith('unique') -%}
    {{ return([]) }}
  {%- endif -%}
  {{ return(arguments.get('columns') or arguments.get('combination_of_columns') or [arguments.get('column_name')]) }}
{% endmacro %}
