-- What a unit compares.  No row: a later pass has taken its place.
select pass, schema_name, source_namespace, source_table, repairs
from {meta}.verifications where unit = %(unit)s
