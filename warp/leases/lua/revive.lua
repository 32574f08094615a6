-- revive: unit -> 1, or 0 where it is not dead
-- KEYS   dead, tries, due, demand written
-- ARGV   3 unit
-- A dead unit becomes ready again, its failures forgotten.
local unit = ARGV[3]
if redis.call('ZREM', DEAD, unit) == 0 then return 0 end
redis.call('HDEL', TRIES, unit)
local now = now_ms()
place(unit, now, now)
ring()
return 1
