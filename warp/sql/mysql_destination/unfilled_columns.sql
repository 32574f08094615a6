-- Columns whose back-fill was cut short by a crash.
select version, unfilled from {meta}.schema_registry
where unit = %(unit)s and unfilled is not null order by version
