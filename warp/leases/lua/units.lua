-- units: -> (unit, state, owner, fence, tries, expires_in ms, spec)*
-- of a unit that is to wait, expires_in is how long it still waits
-- KEYS   due, later, exp, dead, own, fence, tries, spec read; nothing written
local now = now_ms()
local answer = {}

-- Many at a time: one by one, 10,000 units kept everybody else waiting for 50 ms.
local function show(state, members, expires_in)
  for first = 1, #members, MOST_AT_ONCE do
    local last = math.min(first + MOST_AT_ONCE - 1, #members)
    local owners = redis.call('HMGET', OWN, unpack(members, first, last))
    local fences = redis.call('HMGET', FENCE, unpack(members, first, last))
    local tries = redis.call('HMGET', TRIES, unpack(members, first, last))
    local specs = redis.call('HMGET', SPEC, unpack(members, first, last))
    for i = first, last do
      local at = i - first + 1
      answer[#answer + 1] = {
        members[i], state, told(owners[at], LONGEST_NAME), string.format('%.0f', number(fences[at], 0)),
        string.format('%.0f', number(tries[at], 0)), expires_in(i), told(specs[at], LONGEST_SPEC)
      }
    end
  end
end

local function parted(flat)
  local members, scores = {}, {}
  for i = 1, #flat, 2 do
    members[#members + 1] = flat[i]
    scores[#scores + 1] = tonumber(flat[i + 1])
  end
  return members, scores
end

local function none() return 0 end

local leased, expiry = parted(redis.call('ZRANGE', EXP, 0, -1, 'WITHSCORES'))
show('leased', leased, function(i) return number(expiry[i] - now, MOST_FENCE) end)
show('due', redis.call('ZRANGE', DUE, 0, -1), none)
local later, not_before = parted(redis.call('ZRANGE', LATER, 0, -1, 'WITHSCORES'))
show('later', later, function(i) return math.max(0, number(not_before[i] - now, MOST_FENCE)) end)
show('dead', redis.call('ZRANGE', DEAD, 0, -1), none)
return answer
