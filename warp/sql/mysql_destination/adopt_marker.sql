-- Raise the fence in the destination: guarantee 2, first half.  A worker whose lease is not newer
-- than the one that stands here finds no row.
update {meta}.sync_markers
set fence = %(fence)s, owner = %(owner)s, updated_at = sysdate(6)
where unit = %(unit)s and fence < %(fence)s
