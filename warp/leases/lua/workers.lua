-- workers: -> (worker, slots, held, alive_for ms, rss)*
-- KEYS   workers, cap, held, rss read; nothing written
local now = now_ms()
local answer = {}
local known = redis.call('ZRANGE', WORKERS, 0, -1, 'WITHSCORES')
for i = 1, #known, 2 do
  local alive_for = tonumber(known[i + 1]) - now
  if alive_for > 0 then
    answer[#answer + 1] = {
      told(known[i], LONGEST_NAME), math.max(0, number(redis.call('HGET', CAP, known[i]), 0)),
      number(redis.call('HGET', HELD, known[i]), 0), alive_for,
      number(redis.call('HGET', RSS, known[i]), 0)
    }
  end
end
return answer
