-- Binds an open wait to the job that answers it: the first one counts. From then on no message interrupts that job: the wait is its own.
-- The job knows it too, among its places, also as a dead letter: its words are an answer and nothing else, although the wait may be forgotten by then.
-- KEYS board, waits
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 job_id  5 the wait's id  6 a job that it is bound to and that nothing runs any more, or ''
-- -> fenced | gone (it is not open) | taken (another job answers it) | bound
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
local waits = KEYS[OWN]
if redis.call('HEXISTS', waits, ARGV[5]) == 0 then return 'gone' end
local bound = redis.call('HGET', waits, 'bound:' .. ARGV[5])
if bound and bound ~= ARGV[4] and bound ~= ARGV[6] then return 'taken' end
count_write()
redis.call('HSET', waits, 'bound:' .. ARGV[5], ARGV[4])
redis.call('HSET', EMITTED, '!bound', 1)
redis.call('HSET', CONVERSATION, 'seq', AFTER_ALL)
redis.call('SREM', INTERRUPTED, ARGV[2])
return 'bound'
