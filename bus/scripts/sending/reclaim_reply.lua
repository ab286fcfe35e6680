-- Offers a reply again under a new entry that a supervisor took and did not commit (it died, or gave it back).
-- KEYS board
-- ARGV 1 conversation_id  2 entry  3 consumer that held it  4 idle time (ms) from which it counts as lost (0: given back, or death seen)
-- -> kept | restarted
local pending = redis.call('XPENDING', REPLIES, REPLIES_GROUP, ARGV[2], ARGV[2], 1, ARGV[3])
if #pending == 0 or pending[1][3] < tonumber(ARGV[4]) then return { 'kept' } end
local reply = fields_of(REPLIES, ARGV[2])
settle(REPLIES, REPLIES_GROUP, ARGV[2])
if not reply then return { 'kept' } end
count_write()
redis.call('HSET', CONVERSATION, 'reply', redis.call('XADD', REPLIES, '*', 'r', reply.r))
return { 'restarted' }
