-- Writers compare this with the version their batch was shaped for.
update {meta}.sync_markers
set schema_version = %(version)s, updated_at = sysdate(6) where unit = %(unit)s
