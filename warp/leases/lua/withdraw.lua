-- withdraw: unit* -> how many were forgotten
-- KEYS   exp read; due, later, dead, demand, tries, spec written
-- ARGV   3.. units
-- Forgets units that are not leased; their fence stays, lest they come back.
local forgotten = 0
for i = 3, #ARGV do
  local unit = ARGV[i]
  if not redis.call('ZSCORE', EXP, unit) then
    forgotten = forgotten + redis.call('ZREM', DUE, unit) + redis.call('ZREM', LATER, unit)
      + redis.call('ZREM', DEAD, unit)
    redis.call('SREM', DEMAND, unit)
    redis.call('HDEL', TRIES, unit)
    redis.call('HDEL', SPEC, unit)
  end
end
return forgotten
