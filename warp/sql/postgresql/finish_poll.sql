-- A complete run of a poll ends in the transaction of its last marker, and its slot is taken with
-- it: a run cut short before this takes nothing, and its slot is run again.
with ended as (
    update {meta}.sync_runs set status = 'done', ended_at = clock_timestamp()
    where unit = %(unit)s and ended_at is null
    returning slot
)
update {meta}.sync_markers m set slot = ended.slot
from ended where m.unit = %(unit)s and ended.slot is not null
