-- The columns of a destination table as the server has them.
select column_name, data_type, column_type, character_maximum_length, numeric_precision,
    numeric_scale, character_set_name, collation_name, is_nullable = 'YES',
    column_default is not null, extra, datetime_precision
from information_schema.columns
where table_schema = %(namespace)s and table_name = %(table)s
order by ordinal_position
