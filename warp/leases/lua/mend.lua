-- mend: a fresh id -> what was put right
-- KEYS   all of them
-- ARGV   3 the id of the ledger's new life, should it need one
-- Nobody of ours leaves anything to mend; whoever else may write to this Redis might.
--
-- Where a key is of another type, every call of everybody fails.  Then all goes but the fences, as
-- a wiped server loses it: what is left of such a ledger must not be believed, and whatever had to
-- be done is offered anew.  Else what would last for ever does not: a lease and a life that end in
-- years, the slots of one who never was alive, counts that are wrong (a worker that seems to hold
-- more than it does would be asked for units back again and again).
local wrong = {}

local function look(command, name, key, ...)
  local answer = redis.pcall(command, key, ...)
  local refused = type(answer) == 'table' and answer.err
  if refused and string.find(refused, 'WRONGTYPE', 1, true) then wrong[#wrong + 1] = name end
end

look('ZCARD', 'due', DUE)
look('ZCARD', 'later', LATER)
look('ZCARD', 'exp', EXP)
look('ZCARD', 'workers', WORKERS)
look('ZCARD', 'dead', DEAD)
look('HGET', 'own', OWN, '')
look('HGET', 'since', SINCE, '')
look('HGET', 'again', AGAIN, '')
look('HGET', 'tries', TRIES, '')
look('HGET', 'spec', SPEC, '')
look('HGET', 'cap', CAP, '')
look('HGET', 'held', HELD, '')
look('HGET', 'rss', RSS, '')
look('SCARD', 'demand', DEMAND)
look('SCARD', 'chunks', CHUNKS)
look('GET', 'gen', GEN)
local before = #wrong
look('HGET', 'fence', FENCE, '')
if #wrong > before then redis.call('DEL', FENCE) end
if #wrong > 0 then
  redis.call('DEL', DUE, LATER, EXP, OWN, SINCE, AGAIN, TRIES, SPEC, WORKERS, CAP, HELD, DEMAND, DEAD,
    CHUNKS, RSS)
  redis.call('SET', GEN, ARGV[3])
  table.insert(wrong, 1, 'begun anew')
  return wrong
end

local function in_parts(members, put)
  for first = 1, #members, MOST_AT_ONCE do
    put(unpack(members, first, math.min(first + MOST_AT_ONCE - 1, #members)))
  end
end

local now = now_ms()
local far = redis.call('ZRANGEBYSCORE', EXP, now + FAR, '+inf')
for _, unit in ipairs(far) do redis.call('ZADD', EXP, now, unit) end -- and the next sweep reaps it
local immortal = redis.call('ZRANGEBYSCORE', WORKERS, now + FAR, '+inf')
for _, worker in ipairs(immortal) do forget(worker) end
if #far > 0 then wrong[#wrong + 1] = 'exp' end
if #immortal > 0 then wrong[#wrong + 1] = 'workers' end
local strangers = 0
local capacity = redis.call('HGETALL', CAP)
for i = 1, #capacity, 2 do
  if not redis.call('ZSCORE', WORKERS, capacity[i]) then
    redis.call('HDEL', CAP, capacity[i])
    strangers = strangers + 1
  end
end
if strangers > 0 then wrong[#wrong + 1] = 'cap' end

local leased = redis.call('ZRANGE', EXP, 0, -1)
local holding, chunks = {}, {}
for first = 1, #leased, MOST_AT_ONCE do
  local last = math.min(first + MOST_AT_ONCE - 1, #leased)
  for i, owner in ipairs(redis.call('HMGET', OWN, unpack(leased, first, last))) do
    if owner then holding[owner] = (holding[owner] or 0) + 1 end
    local unit = leased[first + i - 1]
    if is_chunk(unit) then chunks[#chunks + 1] = unit end
  end
end
local counted, right = redis.call('HGETALL', HELD), true
for i = 1, #counted, 2 do
  local owner = counted[i]
  if number(counted[i + 1], -1) ~= holding[owner] then
    right = false
    if not holding[owner] then redis.call('HDEL', HELD, owner) end
  else
    holding[owner] = nil
  end
end
for owner, count in pairs(holding) do
  right = false
  redis.call('HSET', HELD, owner, count)
end
if not right then wrong[#wrong + 1] = 'held' end
if redis.call('SCARD', CHUNKS) ~= #chunks then
  redis.call('DEL', CHUNKS)
  in_parts(chunks, function(...) redis.call('SADD', CHUNKS, ...) end)
  wrong[#wrong + 1] = 'chunks'
end
local demanded = leased
for _, unit in ipairs(redis.call('ZRANGE', DUE, 0, -1)) do
  if not redis.call('ZSCORE', EXP, unit) then demanded[#demanded + 1] = unit end
end
if redis.call('SCARD', DEMAND) ~= #demanded then
  redis.call('DEL', DEMAND)
  in_parts(demanded, function(...) redis.call('SADD', DEMAND, ...) end)
  wrong[#wrong + 1] = 'demand'
end
return wrong
