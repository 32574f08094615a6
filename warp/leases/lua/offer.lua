-- offer: unit, delay ms, spec -> 1 where it brought the unit's turn forward, else 0
-- KEYS   due, later, exp, dead read; due, later, again, demand, spec written
-- ARGV   3 unit, 4 delay in ms, 5 spec
-- Ready after the delay; of two offers the earlier wins.  A leased unit is only noted in `again`,
-- the lease is never touched.  A dead unit stays dead: an operator revives it.
local unit, spec = ARGV[3], ARGV[5]
local now = now_ms()
local at = now + tonumber(ARGV[4])
if redis.call('ZSCORE', DEAD, unit) then return 0 end
redis.call('HSET', SPEC, unit, spec)
if redis.call('ZSCORE', EXP, unit) then
  local noted = number(redis.call('HGET', AGAIN, unit))
  if noted and noted <= at then return 0 end
  redis.call('HSET', AGAIN, unit, at)
  return 1
end
if redis.call('ZSCORE', DUE, unit) then return 0 end
local waits_for = redis.call('ZSCORE', LATER, unit)
if waits_for then
  if tonumber(waits_for) <= at then return 0 end
  redis.call('ZREM', LATER, unit)
end
place(unit, at, now)
ring()
return 1
