-- Takes an outbox record to send the same bytes again: one that is due, or whose connection died.
-- KEYS 1 outbox  2 sent  3 write count  4 continuity
-- ARGV 1 conversation_id  2 consumer  3 resend after (ms)  4 the former holder, of which it goes out at once (a new connection), or ''
-- -> false | outbox record, commits
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then return false end
local sent = redis.call('HMGET', KEYS[2], 'r', 'holder')
if not sent[1] then return false end
local now = now_ms()
if tonumber(score) > now and sent[2] ~= ARGV[4] then return false end
redis.call('ZREM', KEYS[1], ARGV[1]) -- the first write, so that a full Redis still sends what is committed (rule 16)
redis.call('INCR', KEYS[3])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
redis.call('HSET', KEYS[2], 'holder', ARGV[2])
return { sent[1], tonumber(redis.call('HGET', KEYS[4], 'commits') or 0) }
