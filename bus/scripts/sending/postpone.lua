-- Sets when an outbox record is due again that the relay has refused for now (429, 5xx).
-- KEYS 1 outbox  2 sent  3 write count
-- ARGV 1 conversation_id  2 client_message_id  3 after (ms)
-- -> 1 | 0 not outstanding any more
if redis.call('HGET', KEYS[2], 'cmid') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1]) -- the first write (rule 16)
redis.call('ZADD', KEYS[1], now_ms() + tonumber(ARGV[3]), ARGV[1])
redis.call('INCR', KEYS[3])
return 1
