-- claim: worker, count, ttl, slots -> (unit, fence, spec)*
-- KEYS   due, exp, own, fence, since, held, chunks, cap, workers written; spec read; and all that
--        a sweep writes
-- ARGV   3 worker, 4 how many at most, 5 ttl in ms, 6 the worker's slots
-- Takes the longest ready units: urgent ones first, except that chunks get their quota of the
-- slots.  Each gets a fence above every fence it ever had, and above the clock, so that a wiped
-- server goes on counting where it was.  A draining worker gets nothing.
--
-- A worker that holds its fair share takes only what nobody else took for a tenth of the ttl:
-- a unit it was just asked to give back would otherwise bounce straight back to it.
local worker, count, ttl = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local us = now_us()
local now = math.floor(us / 1000)
sweep(now)
-- NX: proof of life is the heartbeat, so that a worker counts as dead no later than its leases.
redis.call('ZADD', WORKERS, 'NX', now + ttl, worker)
set_slots(worker, ARGV[6])
if draining(worker) or redis.call('ZCARD', DUE) == 0 then -- idle workers ask often
  ring()
  return {}
end
local all = census(worker)
local leased_chunks, quota = redis.call('SCARD', CHUNKS), chunk_quota(all.capacity)

local function first_urgent(newest)
  local bound = newest and newest - URGENT or '(0'
  return redis.call('ZRANGEBYSCORE', DUE, '-inf', bound, 'LIMIT', 0, 1)[1]
end

local function first_chunk(newest)
  return redis.call('ZRANGEBYSCORE', DUE, 0, newest or '+inf', 'LIMIT', 0, 1)[1]
end

local claimed = {}
for taken = 0, count - 1 do
  local newest = nil
  if all.mine + taken >= all.share then newest = now - math.floor(ttl / 10) end
  local unit
  if leased_chunks < quota then
    unit = first_chunk(newest) or first_urgent(newest)
  else
    unit = first_urgent(newest) or first_chunk(newest)
  end
  if not unit then break end
  local last = tonumber(redis.call('HGET', FENCE, unit) or 0)
  local fence = string.format('%.0f', math.max(last + 1, us))
  redis.call('ZREM', DUE, unit)
  redis.call('ZADD', EXP, now + ttl, unit)
  redis.call('HSET', OWN, unit, worker)
  redis.call('HSET', FENCE, unit, fence)
  redis.call('HSET', SINCE, unit, now)
  redis.call('HINCRBY', HELD, worker, 1)
  if is_chunk(unit) then
    redis.call('SADD', CHUNKS, unit)
    leased_chunks = leased_chunks + 1
  end
  claimed[#claimed + 1] = unit
  claimed[#claimed + 1] = fence
  claimed[#claimed + 1] = redis.call('HGET', SPEC, unit) or ''
end
ring()
return claimed
