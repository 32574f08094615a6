-- Does anything of this schema wait for rows of this destination table?
select exists (select 1 from {meta}.deferred_rows where schema_name = any(%(schemas)s)
    and parent_namespace = %(namespace)s and parent_table = %(table)s)
