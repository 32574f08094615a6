-- What the key's columns are declared as.
select column_name, lower(data_type), column_type, character_set_name, collation_name
from information_schema.columns
where table_schema = {database} and table_name = {table}
