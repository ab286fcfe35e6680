-- A failed job whose time has come runs again, under a new entry.
-- KEYS 1 due  2 conversation  3 jobs  4 gen
-- ARGV 1 conversation_id
-- -> 1 started | 0 not due, or another supervisor was first
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) > now_ms() then return 0 end
local retry = redis.call('HMGET', KEYS[2], 'retry', 'retry_a', 'retry_d')
if not retry[1] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('INCR', KEYS[4])
redis.call('HDEL', KEYS[2], 'retry', 'retry_a', 'retry_d')
start_job(KEYS[3], KEYS[2], retry[1], retry[2], retry[3])
return 1
