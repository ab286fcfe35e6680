-- Queues a reply of a running job: puts it into the conversation's out-box, and the out-box's head into `replies`.
-- KEYS board
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 place  5 reply record  6 job_id
-- -> fenced | already | full (too much of the conversation, or in all, waits to be sent: again later) | queued
-- Invariant: one reply a place of a job, however often the job is run (P2).
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
if redis.call('HEXISTS', EMITTED, ARGV[4]) == 1 then return 'already' end
local has_reply = redis.call('HEXISTS', CONVERSATION, 'reply') == 1
if has_reply and not may_say() then return 'full' end
count_write()
redis.call('HSET', EMITTED, ARGV[4], 1)
note('replied', ARGV[6], ARGV[4])
say(ARGV[5], has_reply)
return 'queued'
