-- As count_quarantine_as_older.
update {meta}.sync_markers
set truncated_at = least(truncated_at, %(newest)s - 1), updated_at = sysdate(6)
where unit = %(unit)s
