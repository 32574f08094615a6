-- The columns of its primary key, in order, and whether each is in it whole.
select column_name, sub_part is null
from information_schema.statistics
where table_schema = %(namespace)s and table_name = %(table)s and index_name = 'PRIMARY'
order by seq_in_index
