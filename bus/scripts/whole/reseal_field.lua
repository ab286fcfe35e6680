-- Replaces a sealed value in a hash by its re-sealed form, unless it has changed since it was read (keys rotate-store).
-- KEYS 1 hash  2 write count
-- ARGV 1 field  2 value read  3 value re-sealed
-- -> 1 | 0 it has changed
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
