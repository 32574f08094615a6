-- What a rewrite of the table would write again, its indexes included, as the server estimates.
select coalesce(data_length, 0) + coalesce(index_length, 0)
from information_schema.tables where table_schema = %(namespace)s and table_name = %(table)s
