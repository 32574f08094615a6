-- The keys of a table's rows in quarantine that may still land, a page at a time.
select id, `key`, kinds, version, operation, column_name from {meta}.quarantine
where source_namespace = %(namespace)s and source_table = %(table)s
    and state in ('waiting', 'replaying') and id > %(after)s
order by id
limit %(limit)s
