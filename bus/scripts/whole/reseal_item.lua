-- Replaces an item of a list by its re-sealed form, unless it has changed since it was read (keys rotate-store).
-- KEYS 1 list  2 write count
-- ARGV 1 index  2 item read  3 item re-sealed
-- -> 1 | 0 it has changed
if redis.call('LINDEX', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('INCR', KEYS[2])
redis.call('LSET', KEYS[1], ARGV[1], ARGV[3])
return 1
