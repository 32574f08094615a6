-- Prelude of every ledger script: the names of the keys, and what several scripts do alike.
--
-- A unit the ledger knows is in exactly one of four places: due, later, exp (leased), dead.
--
-- KEYS, all of them, in this order, in every call (one hash tag, so one slot of a cluster):
--    1 due      ZSET    ready unit -> ready-at ms; urgent units minus URGENT, so that they sort first
--    2 later    ZSET    unit that is to wait -> not-before ms
--    3 exp      ZSET    leased unit -> expiry ms
--    4 own      HASH    leased unit -> worker
--    5 fence    HASH    unit -> last fence issued; outlives the unit, so that no fence comes twice
--    6 since    HASH    leased unit -> claimed-at ms
--    7 again    HASH    leased unit that was offered meanwhile -> not-before ms
--    8 tries    HASH    unit -> consecutive failures and crashes
--    9 spec     HASH    unit -> JSON of the unit (a cache of configuration and markers, no secrets)
--   10 workers  ZSET    worker -> alive-until ms
--   11 cap      HASH    live worker -> slots; -1 while it drains
--   12 held     HASH    worker -> leases it holds
--   13 demand   SET     due or leased units: the number autoscalers read
--   14 dead     ZSET    unit set aside -> since when, ms
--   15 gen      STRING  incarnation id
--   16 chunks   SET     leased units that are not urgent
--   17 rss      HASH    live worker -> resident bytes, as it told with its last renewal
--   18 bell     a pub/sub channel, never a key; listed so that KEYS names all a script touches
--
-- ARGV, first in every call: 1 failures after which a unit is dead, 2 ms of a hold that lets the
-- failures count anew.  All times are the server's (TIME).  No key ever gets a TTL: expiry is data.

local DUE, LATER, EXP, OWN, FENCE, SINCE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local AGAIN, TRIES, SPEC, WORKERS, CAP = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local HELD, DEMAND, DEAD, GEN, CHUNKS = KEYS[12], KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local RSS, BELL = KEYS[17], KEYS[18]
local MAX_TRIES, HEALTHY = tonumber(ARGV[1]), tonumber(ARGV[2])
local URGENT = 1e13 -- more than any time in ms, less than a double can count exactly
local FIRST_BACKOFF, LONGEST_BACKOFF = 1000, 60000
local SWEEP = 200 -- units moved by one call at most, so that no call blocks the server for long
local MOST_AT_ONCE = 1000 -- units of one command: Lua hands over 8,000 arguments at most
local MOST_FENCE = 9007199254740990 -- beyond it a double does not count every number
local LONGEST_SPEC, LONGEST_NAME = 65536, 512 -- bytes
local FAR = 86400000 -- ms; no lease and no heartbeat of ours lasts for a day

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- Chunks come by the thousand and each is long; behind them a stream taken from a dead worker
-- would wait for hours.  So do the key ranges of a verification.  Everything else is urgent.
local function is_chunk(unit)
  return string.sub(unit, 1, 6) == 'chunk:' or string.sub(unit, 1, 7) == 'verify:'
end

-- Anybody may have written what is stored, and a script that breaks on what it finds about one unit
-- breaks for all of them.  So each stored number is read by this, and else counts as not there.
local function number(text, otherwise)
  local found = tonumber(text)
  if not found or found ~= found or math.abs(found) > MOST_FENCE then return otherwise end
  return found
end

-- What is told of it: cut where nothing of ours is as long, so that a spec is refused for that.
local function told(text, longest)
  if text and #text > longest then return string.sub(text, 1, longest + 1) end
  return text or ''
end

-- Two more arguments of a command that takes pairs.
local function add(list, first, second)
  list[#list + 1] = first
  list[#list + 1] = second
end

local woken = false

local function ring()
  -- pcall: a user without rights on the channel loses the speed-up, not the ledger.
  if woken then redis.pcall('PUBLISH', BELL, 'due') end
end

local function place(unit, at, now)
  if at > now then
    redis.call('SREM', DEMAND, unit)
    redis.call('ZADD', LATER, at, unit)
  else
    redis.call('SADD', DEMAND, unit)
    redis.call('ZADD', DUE, is_chunk(unit) and at or at - URGENT, unit)
    woken = true
  end
end

local function bury(unit, now)
  redis.call('SREM', DEMAND, unit)
  redis.call('ZADD', DEAD, now, unit)
end

local function drop_lease(unit)
  local owner = redis.call('HGET', OWN, unit)
  redis.call('ZREM', EXP, unit)
  redis.call('SREM', CHUNKS, unit)
  redis.call('HDEL', OWN, unit)
  redis.call('HDEL', SINCE, unit)
  redis.call('HDEL', AGAIN, unit)
  if owner then
    local held = number(redis.call('HGET', HELD, owner), 0) - 1
    if held > 0 then redis.call('HSET', HELD, owner, held) else redis.call('HDEL', HELD, owner) end
  end
end

local function holds(worker, unit, fence)
  return redis.call('HGET', OWN, unit) == worker and redis.call('HGET', FENCE, unit) == fence
end

-- One more failure of a leased unit whose hold ended at `ended`.
local function count_failure(unit, ended)
  local since = number(redis.call('HGET', SINCE, unit), ended)
  local tries = 1
  if ended - since < HEALTHY then tries = number(redis.call('HGET', TRIES, unit), 0) + 1 end
  redis.call('HSET', TRIES, unit, tries)
  return tries
end

local function backoff(tries)
  return math.min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ^ math.min(tries - 1, 16))
end

-- Units whose lease ran out become ready again: the first time at once and, by the time they ran
-- out, ahead of newer work; then held back for longer each time.  A crash that took several units
-- along sets none of them aside, since one of them may have brought it on the others.
local function reap(now)
  local expired = redis.call('ZRANGEBYSCORE', EXP, '-inf', now, 'LIMIT', 0, SWEEP)
  local alone = {}
  for _, unit in ipairs(expired) do
    local owner = redis.call('HGET', OWN, unit) or ''
    if alone[owner] == nil then
      local alive = tonumber(redis.call('ZSCORE', WORKERS, owner) or 0) > now
      alone[owner] = alive or number(redis.call('HGET', HELD, owner), 0) <= 1
    end
  end
  for _, unit in ipairs(expired) do
    local ended = math.max(0, tonumber(redis.call('ZSCORE', EXP, unit)))
    local blamed = alone[redis.call('HGET', OWN, unit) or '']
    local tries = count_failure(unit, ended)
    if tries >= MAX_TRIES and not blamed then
      tries = MAX_TRIES - 1
      redis.call('HSET', TRIES, unit, tries)
    end
    drop_lease(unit)
    if tries >= MAX_TRIES then
      bury(unit, now)
    elseif tries <= 1 then
      place(unit, ended, now)
    else
      place(unit, now + backoff(tries - 1), now)
    end
  end
end

local function promote(now)
  local ready = redis.call('ZRANGEBYSCORE', LATER, '-inf', now, 'WITHSCORES', 'LIMIT', 0, SWEEP)
  for i = 1, #ready, 2 do
    redis.call('ZREM', LATER, ready[i])
    place(ready[i], tonumber(ready[i + 1]), now)
  end
end

local function forget(worker)
  redis.call('ZREM', WORKERS, worker)
  redis.call('HDEL', CAP, worker)
  redis.call('HDEL', RSS, worker)
end

local function sweep(now)
  reap(now)
  promote(now)
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', now)) do forget(worker) end
end

local function draining(worker)
  return redis.call('HGET', CAP, worker) == '-1'
end

local function set_slots(worker, slots)
  if not draining(worker) then redis.call('HSET', CAP, worker, slots) end
end

-- All slots of the workers that take work, the free ones among them, and what one worker would
-- hold if all leased and waiting units were spread by slots.
local function census(worker)
  local held = {}
  local flat = redis.call('HGETALL', HELD)
  for i = 1, #flat, 2 do held[flat[i]] = number(flat[i + 1], 0) end
  local capacity, free, own_slots = 0, 0, 0
  flat = redis.call('HGETALL', CAP)
  for i = 1, #flat, 2 do
    local slots = math.max(0, number(flat[i + 1], 0))
    capacity = capacity + slots
    free = free + math.max(0, slots - (held[flat[i]] or 0))
    if flat[i] == worker then own_slots = slots end
  end
  local units = redis.call('ZCARD', EXP) + redis.call('ZCARD', DUE)
  local share = 0
  if capacity > 0 then share = math.ceil(units * own_slots / capacity) end
  return {capacity = capacity, free = free, share = share, mine = held[worker] or 0}
end

-- Of all slots, those that chunks may count on while urgent units wait as well.
local function chunk_quota(capacity)
  return math.max(1, math.floor(capacity / 4))
end
