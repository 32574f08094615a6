-- Chunks read before this version hold rows that are gone.
update {meta}.sync_markers
set truncated_at = greatest(truncated_at, %(version)s), updated_at = sysdate(6)
where unit = %(unit)s
