-- Reads what handlers keep of a conversation, for a job that asks for both; writes nothing.
-- KEYS 1 state  2 history
-- -> the state's record or nil, the records of what was said
return { redis.call('GET', KEYS[1]), redis.call('LRANGE', KEYS[2], 0, -1) }
