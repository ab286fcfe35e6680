-- A job has ended well: its entry goes, the next job of the mailbox starts.
-- KEYS 1 jobs  2 conversation  3 mailbox  4 emitted  5 gen
-- ARGV 1 entry (fencing token)  2 consumer
-- -> fenced | done
-- Invariant: the conversation is busy or its mailbox is empty. First write is XACK, so that a full Redis drains (rule 16).
if not lease_is_mine(KEYS[1], JOBS_GROUP, ARGV[1], ARGV[2]) then return 'fenced' end
settle(KEYS[1], JOBS_GROUP, ARGV[1])
redis.call('INCR', KEYS[5])
start_next_job(KEYS[1], KEYS[2], KEYS[3], KEYS[4])
return 'done'
