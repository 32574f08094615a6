-- incarnation: a fresh id -> the id of this ledger's life
-- KEYS   gen read, and written once
-- ARGV   3 the id to take where there is none yet
-- Another answer than the last one means that the server was wiped in between.
redis.call('SET', GEN, ARGV[3], 'NX')
return redis.call('GET', GEN)
