-- The columns of the unique keys of a table beside its primary key, and whether they may be NULL.
select distinct s.column_name, c.is_nullable = 'YES'
from information_schema.statistics s
join information_schema.columns c on c.table_schema = s.table_schema
    and c.table_name = s.table_name and c.column_name = s.column_name
where s.table_schema = %(namespace)s and s.table_name = %(table)s
    and s.index_name <> 'PRIMARY' and s.non_unique = 0
order by 1
