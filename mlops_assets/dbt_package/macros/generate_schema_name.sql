{# The schema is exactly the configured one: dbt's default would prefix it with the target's. #}
{% macro default__generate_schema_name(custom_schema_name, node) -%}
  {{ custom_schema_name or target.schema }}
{%- endmacro %}
