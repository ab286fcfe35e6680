-- Puts a job that no message began (a timer's, an event's, one from outside) behind everything that waits in a conversation.
-- KEYS board, placements, behind
-- ARGV 1 conversation_id  2 job_id  3 job record  4 its kind  5 most of them that wait in one conversation  6 most bytes that wait for a handler
--      7 how many ids are remembered  8 entries of the ledger that are kept
-- -> already | full (too many of them wait here, or too many bytes in all: again later) | placed
-- Invariant: a job is placed once by its id, also when it has ended long ago, and is then run whatever the mailbox's limit is.
local PLACEMENTS, BEHIND = KEYS[OWN], KEYS[OWN + 1]
if redis.call('ZSCORE', PLACEMENTS, ARGV[2]) then return 'already' end
if redis.call('ZCARD', PLACED) >= tonumber(ARGV[5]) or not has_room(payer_of(ARGV[3]), tonumber(ARGV[6])) then return 'full' end
count_write()
redis.call('ZADD', PLACEMENTS, now_ms(), ARGV[2])
redis.call('ZREMRANGEBYRANK', PLACEMENTS, 0, -1 - tonumber(ARGV[7]))
note_first('placed', ARGV[2], CONVERSATION_ID .. ' ' .. ARGV[4], ARGV[8])
join_behind(ARGV[3], BEHIND)
return 'placed'
