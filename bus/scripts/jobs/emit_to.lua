-- Queues a reply of a running job in another conversation of the agent; a card is known there from then on.
-- KEYS board (of the other conversation), emitted (of the job's own), cards (of the other)
-- ARGV 1 the other conversation_id  2 entry (fencing token)  3 consumer  4 place  5 reply record  6 job_id
--      7 a card's id  8 what it is, as in `emit_card`  9 id of the job's thread (7 to 9 for a card alone)
-- -> fenced | already | unknown (nobody has written there yet) | full (as in `emit`) | queued
-- Invariant: one reply a place of a job, wherever it goes (P2).
local PLACES, CARDS = KEYS[OWN], KEYS[OWN + 1]
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
if redis.call('HEXISTS', PLACES, ARGV[4]) == 1 then return 'already' end
local kind, reply, entry = unpack(redis.call('HMGET', CONVERSATION, 'kind', 'reply', 'entry'))
if not kind then return 'unknown' end
if reply and not may_say() then return 'full' end
count_write()
redis.call('HSET', PLACES, ARGV[4], ARGV[7] or 1)
if ARGV[7] then keep_card(CARDS, ARGV[7], new_card(ARGV[9], ARGV[4], ARGV[8])) end
note('replied', ARGV[6], ARGV[4])
if not reply and not entry then begin_work() end
say(ARGV[5], reply and true or false)
return 'queued'
