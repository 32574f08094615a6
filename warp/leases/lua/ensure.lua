-- ensure: (unit, spec)* -> how many were added
-- KEYS   due, later, exp, dead read; due, demand, spec written; and all that a sweep writes
-- ARGV   3.. pairs of unit and spec
-- Adds the units the ledger does not know, ready at once, and brings every spec up to date.  Safe
-- from any number of coordinators at any time.  It sweeps, so that due, later and demand are true
-- also while no worker lives (an autoscaler has gone down to zero).
local now = now_ms()
sweep(now)
local added = 0
for i = 3, #ARGV, 2 do
  local unit = ARGV[i]
  redis.call('HSET', SPEC, unit, ARGV[i + 1])
  local waits = tonumber(redis.call('ZSCORE', LATER, unit) or '')
  if waits and waits > now + FAR then -- no failure of ours is held back for that long
    redis.call('ZREM', LATER, unit)
    waits = nil
  end
  if not (waits or redis.call('ZSCORE', DUE, unit)
      or redis.call('ZSCORE', EXP, unit) or redis.call('ZSCORE', DEAD, unit)) then
    place(unit, now, now)
    added = added + 1
  end
end
ring()
return added
