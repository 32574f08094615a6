-- The newest version of a table's schema, and what its marker says of it.
select r.version, r.`columns`, r.`key`, m.phase
from {meta}.schema_registry r
join {meta}.sync_markers m on m.unit = r.unit
where r.unit = %(unit)s order by r.version desc limit 1
