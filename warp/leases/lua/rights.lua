-- rights: -> what the user is denied, a line each; nothing of what it writes stays
-- KEYS   all of them, each by a command of its type
-- ARGV   3 a unit id that nobody uses
-- What removes comes first: only where that is allowed is there something to be removed.
local PROBE = ARGV[3]
local denied = {}

local function may(command, ...)
  local answer = redis.pcall(command, ...)
  local refused = type(answer) == 'table' and answer.err
  if refused then table.insert(denied, command .. ' ' .. tostring(({...})[1] or '') .. ': ' .. refused) end
  return not refused
end

may('TIME')
for _, key in ipairs({DUE, LATER, EXP, WORKERS, DEAD}) do
  may('ZSCORE', key, PROBE)
end
for _, key in ipairs({OWN, FENCE, SINCE, AGAIN, TRIES, SPEC, CAP, HELD, RSS}) do
  may('HGET', key, PROBE)
  may('HMGET', key, PROBE)
end
if may('ZREM', DUE, PROBE) and may('ZADD', DUE, 0, PROBE) then
  redis.call('ZREM', DUE, PROBE)
end
may('ZCARD', DUE)
may('ZCOUNT', DUE, 0, 0)
may('ZRANGE', DUE, 0, 0)
may('ZRANGEBYSCORE', DUE, 0, 0)
if may('HDEL', TRIES, PROBE) then
  may('HSET', TRIES, PROBE, 1)
  redis.call('HDEL', TRIES, PROBE)
end
may('HGETALL', HELD)
if may('SREM', DEMAND, PROBE) and may('SADD', DEMAND, PROBE) then
  redis.call('SREM', DEMAND, PROBE)
end
may('SCARD', DEMAND)
if may('SREM', CHUNKS, PROBE) and may('SADD', CHUNKS, PROBE) then
  redis.call('SREM', CHUNKS, PROBE)
end
-- Of what is not there nothing is lost.
if may('ZCARD', DEAD) and redis.call('ZCARD', DEAD) == 0 then
  may('DEL', DEAD)
elseif may('ZCARD', LATER) and redis.call('ZCARD', LATER) == 0 then
  may('DEL', LATER)
end
if may('GET', GEN) and redis.call('GET', GEN) then may('SET', GEN, '', 'NX') end
return denied
