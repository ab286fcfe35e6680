-- Queues a reply of our own (an offer of a session) before the one that was taken, which waits in the out-box behind it.
-- KEYS board
-- ARGV 1 conversation_id  2 entry of `replies` (of the head)  3 consumer  4 reply record
-- -> fenced | queued
-- Invariant: the head of the out-box is the reply under way. First write is XACK, so that a full Redis drains (rule 16).
if redis.call('HGET', CONVERSATION, 'reply') ~= ARGV[2] then return 'fenced' end
if not lease_is_mine(REPLIES, REPLIES_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
settle(REPLIES, REPLIES_GROUP, ARGV[2])
count_write()
redis.call('LPUSH', OUT_BOX, ARGV[4])
start_next_reply(ARGV[4])
return 'queued'
