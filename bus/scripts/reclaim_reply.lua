-- A reply that a supervisor took and did not commit (it died, or gave it back) is offered again under a new entry.
-- KEYS 1 replies  2 conversation  3 gen
-- ARGV 1 entry  2 consumer that held it  3 idle time (ms) from which it counts as lost (0: given back, or death seen)
-- -> kept | restarted
local pending = redis.call('XPENDING', KEYS[1], REPLIES_GROUP, ARGV[1], ARGV[1], 1, ARGV[2])
if #pending == 0 or pending[1][3] < tonumber(ARGV[3]) then return 'kept' end
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
settle(KEYS[1], REPLIES_GROUP, ARGV[1])
if not entry then return 'kept' end
redis.call('INCR', KEYS[3])
redis.call('HSET', KEYS[2], 'reply', redis.call('XADD', KEYS[1], '*', 'r', entry[2][2]))
return 'restarted'
