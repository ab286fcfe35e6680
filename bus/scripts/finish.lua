-- A job has ended well: its entry goes, the next job of the mailbox starts.
-- KEYS board
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 job_id  5 outcome: done, superseded or no_handler
-- -> fenced | done
-- Invariant: the conversation is busy or its mailbox is empty. First write is XACK, so that a full Redis drains (rule 16).
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
settle(JOBS, JOBS_GROUP, ARGV[2])
count_write()
redis.call('HDEL', CONVERSATION, 'p:' .. ARGV[4]) -- of one that was superseded before it began
note(ARGV[5], ARGV[4])
start_next_job(ARGV[2])
return 'done'
