-- Starts a failed job whose time has come, under a new entry.
-- KEYS board
-- ARGV 1 conversation_id
-- -> 1 started | 0 not due, or another supervisor was first
local score = redis.call('ZSCORE', DUE, CONVERSATION_ID)
if not score or tonumber(score) > now_ms() then return 0 end
local retry = redis.call('HMGET', CONVERSATION, 'retry', 'retry_a', 'retry_d', 'retry_s')
redis.call('ZREM', DUE, CONVERSATION_ID)
if not retry[1] then return 0 end
count_write()
redis.call('HDEL', CONVERSATION, 'retry', 'retry_a', 'retry_d', 'retry_s', 'retry_j')
start_job(retry[1], retry[2], retry[3], retry[4] or 0)
return 1
