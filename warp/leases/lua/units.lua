-- units: -> (unit, state, owner, fence, tries, expires_in ms, spec)*
-- of a unit that is to wait, expires_in is how long it still waits
-- KEYS   due, later, exp, dead, own, fence, tries, spec read; nothing written
local now = now_ms()
local answer = {}

local function show(unit, state, expires_in)
  answer[#answer + 1] = {
    unit, state, redis.call('HGET', OWN, unit) or '', redis.call('HGET', FENCE, unit) or '0',
    redis.call('HGET', TRIES, unit) or '0', expires_in, redis.call('HGET', SPEC, unit) or ''
  }
end

local leased = redis.call('ZRANGE', EXP, 0, -1, 'WITHSCORES')
for i = 1, #leased, 2 do show(leased[i], 'leased', tonumber(leased[i + 1]) - now) end
for _, unit in ipairs(redis.call('ZRANGE', DUE, 0, -1)) do show(unit, 'due', 0) end
local later = redis.call('ZRANGE', LATER, 0, -1, 'WITHSCORES')
for i = 1, #later, 2 do show(later[i], 'later', math.max(0, tonumber(later[i + 1]) - now)) end
for _, unit in ipairs(redis.call('ZRANGE', DEAD, 0, -1)) do show(unit, 'dead', 0) end
return answer
