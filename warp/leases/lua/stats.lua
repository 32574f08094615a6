-- stats: -> due, later, leased, expired, dead, demand, oldest_due ms, capacity, workers
-- KEYS   due, later, exp, dead, demand, cap, workers read; nothing written
local now = now_ms()
local oldest = 0
local urgent = redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
if urgent[2] and tonumber(urgent[2]) < 0 then oldest = now - (tonumber(urgent[2]) + URGENT) end
local chunk = redis.call('ZRANGEBYSCORE', DUE, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if chunk[2] then oldest = math.max(oldest, now - tonumber(chunk[2])) end
local capacity = 0
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '(' .. string.format('%.0f', now), '+inf')) do
  capacity = capacity + math.max(0, number(redis.call('HGET', CAP, worker), 0))
end
return {
  redis.call('ZCARD', DUE), redis.call('ZCARD', LATER), redis.call('ZCARD', EXP),
  redis.call('ZCOUNT', EXP, '-inf', now), redis.call('ZCARD', DEAD), redis.call('SCARD', DEMAND),
  math.min(math.max(0, oldest), MOST_FENCE), capacity,
  redis.call('ZCOUNT', WORKERS, '(' .. string.format('%.0f', now), '+inf')
}
