update {meta}.schema_registry set unfilled = null
where unit = %(unit)s and version = %(version)s
