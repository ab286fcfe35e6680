-- Replaces a job in a mailbox by its re-sealed form, at the same seq (keys rotate-store).
-- KEYS 1 mailbox  2 write count
-- ARGV 1 record read  2 record re-sealed
-- -> 1 | 0 it is no longer there
local seq = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not seq then return 0 end
redis.call('INCR', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], seq, ARGV[2])
return 1
