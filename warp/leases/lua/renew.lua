-- renew: worker, ttl, slots, rss, unit*, fence* -> shed, then 1 (still held) or 0 (lost) for each
-- KEYS   own, fence, due read; exp, workers, cap, rss written; and all that a sweep writes
-- ARGV   3 worker, 4 ttl in ms, 5 the worker's slots, 6 its resident bytes, 7.. units, 250 at
--        most, then the fence of each
-- Held means: this owner and this fence.  A late renewal counts while nobody has reaped the lease,
-- so the worker's own are renewed before the sweep.
--
-- shed is how many units the worker is asked to give back at its next batch boundary; it is the
-- wish of this moment, not to be added to the last one:
--   * all of them, while the worker drains;
--   * a part of what waits for a slot where none is free, so that units take turns;
--   * while nothing waits, four fifths of what it holds above its fair share by slots.  Nothing
--     while something waits: what was given back before has not been taken yet.
local worker, ttl = ARGV[3], tonumber(ARGV[4])
local now = now_ms()
redis.call('ZADD', WORKERS, now + ttl, worker)
set_slots(worker, ARGV[5])
redis.call('HSET', RSS, worker, ARGV[6])
local answer, count = {0}, (#ARGV - 6) / 2
if count > 0 then -- as `holds` says, for all of them at once
  local owners = redis.call('HMGET', OWN, unpack(ARGV, 7, 6 + count))
  local issued = redis.call('HMGET', FENCE, unpack(ARGV, 7, 6 + count))
  local renewed, expiry = {}, now + ttl
  for i = 1, count do
    local held = owners[i] == worker and issued[i] == ARGV[6 + count + i]
    if held then
      renewed[#renewed + 1] = expiry
      renewed[#renewed + 1] = ARGV[6 + i]
    end
    answer[i + 1] = held and 1 or 0
  end
  if #renewed > 0 then redis.call('ZADD', EXP, unpack(renewed)) end
end
sweep(now)
local all = census(worker)
local waiting = redis.call('ZCARD', DUE)
if draining(worker) then
  answer[1] = all.mine
elseif waiting == 0 then
  if all.mine > all.share then answer[1] = math.ceil((all.mine - all.share) * 0.8) end
elseif all.free < waiting then
  local urgent = redis.call('ZCOUNT', DUE, '-inf', '(0')
  local short = math.max(0, urgent - all.free)
  if all.free == 0 then
    local missing = chunk_quota(all.capacity) - redis.call('SCARD', CHUNKS)
    short = short + math.max(0, math.min(waiting - urgent, missing))
  end
  local leased = redis.call('ZCARD', EXP)
  if leased > 0 then answer[1] = math.min(all.mine, math.ceil(short * all.mine / leased)) end
end
ring()
return answer
