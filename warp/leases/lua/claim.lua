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
local worker, ttl = ARGV[3], tonumber(ARGV[5])
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

-- All that the commands below do, they do for every unit at once: one by one, a claim of 250 units
-- kept everybody else waiting for 10 ms.
local count = math.min(tonumber(ARGV[4]), MOST_AT_ONCE)

-- The longest ready, first to last; no more of one sort than are wanted can be taken.
local function waiting(from, to)
  local found = redis.call('ZRANGEBYSCORE', DUE, from, to, 'WITHSCORES', 'LIMIT', 0, count)
  return {found = found, at = 1}
end

local function pop(queue, newest)
  local unit = queue.found[queue.at]
  if not unit or (newest and tonumber(queue.found[queue.at + 1]) > newest) then return nil end
  queue.at = queue.at + 2
  return unit
end

local urgent, chunks = waiting('-inf', '(0'), waiting(0, '+inf')
local units, leased, owned, since, new_chunks = {}, {}, {}, {}, {}
for taken = 0, count - 1 do
  local newest = nil
  if all.mine + taken >= all.share then newest = now - math.floor(ttl / 10) end
  local newest_urgent = newest and newest - URGENT
  local unit
  if leased_chunks < quota then
    unit = pop(chunks, newest) or pop(urgent, newest_urgent)
  else
    unit = pop(urgent, newest_urgent) or pop(chunks, newest)
  end
  if not unit then break end
  units[#units + 1] = unit
  add(leased, now + ttl, unit)
  add(owned, unit, worker)
  add(since, unit, now)
  if is_chunk(unit) then
    new_chunks[#new_chunks + 1] = unit
    leased_chunks = leased_chunks + 1
  end
end
if #units == 0 then
  ring()
  return {}
end
local last, specs = redis.call('HMGET', FENCE, unpack(units)), redis.call('HMGET', SPEC, unpack(units))
local fences, claimed = {}, {}
for i, unit in ipairs(units) do
  local fence = string.format('%.0f', math.max(number(last[i], 0) + 1, us))
  add(fences, unit, fence)
  add(claimed, unit, fence)
  claimed[#claimed + 1] = told(specs[i], LONGEST_SPEC)
end
redis.call('ZREM', DUE, unpack(units))
redis.call('ZADD', EXP, unpack(leased))
redis.call('HSET', OWN, unpack(owned))
redis.call('HSET', FENCE, unpack(fences))
redis.call('HSET', SINCE, unpack(since))
redis.call('HSET', HELD, worker, math.max(0, all.mine) + #units)
if #new_chunks > 0 then redis.call('SADD', CHUNKS, unpack(new_chunks)) end
ring()
return claimed
