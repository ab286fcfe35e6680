-- Replaces a reply in an out-box by its re-sealed form, and if it is the head in `replies` its entry too (keys rotate-store).
-- KEYS 1 out-box  2 replies  3 conversation  4 write count
-- ARGV 1 index  2 record read  3 record re-sealed
-- -> 1 | 0 it has changed
-- Invariant: the entry of a head in `replies` has the head's bytes.
if redis.call('LINDEX', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local entry = ARGV[1] == '0' and redis.call('HGET', KEYS[3], 'reply')
redis.call('INCR', KEYS[4])
if entry and entry ~= 'sent' then
  settle(KEYS[2], REPLIES_GROUP, entry)
  redis.call('HSET', KEYS[3], 'reply', redis.call('XADD', KEYS[2], '*', 'r', ARGV[3]))
end
redis.call('LSET', KEYS[1], ARGV[1], ARGV[3])
return 1
