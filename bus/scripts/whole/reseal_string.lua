-- Replaces a sealed value by its re-sealed form, unless it has changed since it was read (keys rotate-store).
-- KEYS 1 string  2 write count
-- ARGV 1 value read  2 value re-sealed
-- -> 1 | 0 it has changed
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2])
return 1
