"""What the audit may hold against a fleet: each query finds the proofs of one fault.

PostgreSQL and MariaDB understand each of them; `{meta}` and `{audit}` stand for what a `Warehouse`
calls its metadata and its audit.
"""

from __future__ import annotations

from typing import Final

ACCUSATIONS: Final = {
    "a batch that does not follow the one before it": (
        "select unit, old_batch, batch, program from {audit}.advances"
        " where moved and batch <> old_batch + 1"
    ),
    "batches of a unit with a gap or a repetition": (
        "select * from (select unit, batch, batch - lag(batch) over (partition by unit order by n)"
        " as step from {audit}.advances where moved) as s where step <> 1"
    ),
    "a fence that fell": (
        "select unit, old_fence, fence, program from {audit}.advances where fence < old_fence"
    ),
    "a write by somebody who had not adopted the unit last": (
        "select w.unit, w.batch, w.program from {audit}.advances w where w.moved"
        " and w.program <> (select a.program from {audit}.advances a where a.unit = w.unit"
        " and a.n < w.n and a.fence <> a.old_fence order by a.n desc limit 1)"
    ),
    # One MongoDB transaction may change a key twice at one version; the workload never does so.
    "a change applied by two transactions": (
        'select source, "key", version from {audit}.rows r where exists (select 1'
        " from {audit}.advances a where a.tx = r.tx and a.unit like 'stream:%' and a.onward)"
        ' group by source, "key", version having count(distinct tx) > 1'
    ),
    "a row that went back to an older version": (
        'select * from (select source, "key", version, lag(version) over'
        ' (partition by source, "key" order by n) as earlier from {audit}.rows) as s'
        " where version < earlier"
    ),
    "a deletion in the audit twice": (
        'select source_table, "key", version from {meta}.deletion_audit'
        ' group by source_table, "key", version having count(*) > 1'
    ),
    "a run left open that is not the owner's": (
        "select r.unit, r.worker, m.owner, m.phase from {meta}.sync_runs r"
        " left join {meta}.sync_markers m on m.unit = r.unit"
        # Not the fence: a worker that waits for a server adopts anew within one run.
        " where r.ended_at is null"
        " and (m.unit is null or m.phase = 'done' or m.owner <> r.worker)"
    ),
    "two runs of one unit left open": (
        "select unit, count(*) from {meta}.sync_runs"
        " where ended_at is null group by unit having count(*) > 1"
    ),
    "a unit that was given up": (
        "select m.unit, e.message from {meta}.sync_markers m left join"
        " {meta}.error_log e on e.unit = m.unit where m.phase = 'failed'"
    ),
    # Known tables have rows to be set aside, and a judge of their own.
    "a row set aside": (
        'select source_table, "key", reason from {meta}.quarantine'
        " where source_table not in ('accounts', 'entries')"
    ),
}
