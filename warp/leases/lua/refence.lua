-- refence: worker, unit, fence, floor -> the new fence, or '' where the lease is not ours any more
-- KEYS   own read; fence written
-- ARGV   3 worker, 4 unit, 5 fence, 6 floor
-- For a holder that met a fence as new as its own in the destination: the server was wiped, or its
-- clock set back.  The new fence is above the floor, above ours and above the clock.
local worker, unit, fence, floor = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
if not holds(worker, unit, fence) then return '' end
local new = string.format('%.0f', math.max(math.max(tonumber(fence), floor) + 1, now_us()))
redis.call('HSET', FENCE, unit, new)
return new
