-- Replaces a sealed value if it still has the version that was read.
-- KEYS 1 value  2 index  3 write count
-- ARGV 1 version read  2 sealed value  3 its name in the index, or ''
-- -> 1 | 0 another has changed it
if not is_current(KEYS[1], ARGV[1]) then return 0 end
redis.call('INCR', KEYS[3])
redis.call('HSET', KEYS[1], 'v', tonumber(ARGV[1]) + 1, 'b', ARGV[2])
if ARGV[3] ~= '' then redis.call('SADD', KEYS[2], ARGV[3]) end
return 1
