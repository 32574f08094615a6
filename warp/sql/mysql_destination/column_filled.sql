-- A column whose values have all been moved out of _extra.
update {meta}.schema_registry set unfilled = null
where unit = %(unit)s and version = %(version)s
