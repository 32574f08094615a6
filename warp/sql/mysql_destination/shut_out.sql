-- Whoever is at this unit must adopt it anew, and sees what has become of its tables; it goes on
-- from its place, and what is paused or has failed stays so.
update {meta}.sync_markers
set fence = fence + 1, epoch = epoch + 1, updated_at = sysdate(6)
where unit = %(unit)s
