-- release: worker, unit, fence, delay, outcome -> 1, or 0 where the lease is not ours any more
-- KEYS   own, fence, since, again read; exp, own, since, again, held, chunks, tries, due, later,
--        demand, dead, spec written
-- ARGV   3 worker, 4 unit, 5 fence, 6 delay in ms (-1: finished), 7 ok | failed | dead
-- ok forgets all failures; the unit is ready after the delay, or earlier where it was offered
-- meanwhile.  failed counts one, holds the unit back whatever was offered, for the delay or, where
-- there is none, exponentially, and sets it aside after too many.  dead sets it aside at once.
local worker, unit, fence, delay, outcome = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
if not holds(worker, unit, fence) then return 0 end
local now = now_ms()
local offered = number(redis.call('HGET', AGAIN, unit))
if outcome == 'dead' then
  drop_lease(unit)
  bury(unit, now)
elseif outcome == 'failed' then
  local tries = count_failure(unit, now)
  drop_lease(unit)
  if tries >= MAX_TRIES then
    bury(unit, now)
  else
    place(unit, now + (delay > 0 and delay or backoff(tries)), now)
  end
else
  redis.call('HDEL', TRIES, unit)
  drop_lease(unit)
  local at = math.huge
  if delay >= 0 then at = now + delay end
  if offered and offered < at then at = offered end
  if at < math.huge then
    place(unit, at, now)
  else
    redis.call('SREM', DEMAND, unit)
    redis.call('HDEL', SPEC, unit)
  end
end
ring()
return 1
