-- Of these keys of a table, those with rows in quarantine that may still land.
select distinct `key` from {meta}.quarantine
where source_namespace = %(namespace)s and source_table = %(table)s
    and state in ('waiting', 'replaying') and `key` in %(keys)s
