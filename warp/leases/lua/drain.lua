-- drain: worker -> how many leases it still holds
-- KEYS   cap, workers written; held read
-- ARGV   3 worker, 4 ttl in ms
-- The worker claims nothing more, its slots no longer count, and its next renewal asks for all of
-- its units back.  Forgotten when the worker stops renewing.
-- GT: also for a worker that has just been silent too long, else it would be forgotten at once.
redis.call('ZADD', WORKERS, 'GT', now_ms() + tonumber(ARGV[4]), ARGV[3])
redis.call('HSET', CAP, ARGV[3], -1)
return number(redis.call('HGET', HELD, ARGV[3]), 0)
