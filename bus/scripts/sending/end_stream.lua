-- Forgets a stream that no message will end; the caller that gets 1 tells the relay.
-- KEYS 1 streams  2 write count
-- ARGV 1 conversation_id  2 stream_id, space, supervisor
-- -> 1 | 0 it has ended meanwhile, or another stream has begun
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('INCR', KEYS[2])
return 1
