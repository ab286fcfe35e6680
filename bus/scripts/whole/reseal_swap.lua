-- Replaces the dead letters by their copy, unless there are others than were copied (keys rotate-store).
-- KEYS 1 dead letters  2 copy  3 write count
-- ARGV 1 how many  2 the newest of them
-- -> 1 | 0 they have changed
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not newest or newest[1] ~= ARGV[2] or redis.call('XLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
if redis.call('XLEN', KEYS[2]) ~= tonumber(ARGV[1]) then return 0 end
redis.call('INCR', KEYS[3])
redis.call('RENAME', KEYS[2], KEYS[1])
return 1
