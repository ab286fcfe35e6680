-- A running job sends: the reply into the conversation's out-box, the out-box's head into `replies`.
-- KEYS 1 jobs  2 conversation  3 emitted  4 out-box  5 replies  6 gen
-- ARGV 1 entry (fencing token)  2 consumer  3 place  4 reply record
-- -> fenced | already | queued
-- Invariant: one reply a place of a job, however often the job is run (P2).
if not lease_is_mine(KEYS[1], JOBS_GROUP, ARGV[1], ARGV[2]) then return 'fenced' end
if redis.call('HEXISTS', KEYS[3], ARGV[3]) == 1 then return 'already' end
redis.call('INCR', KEYS[6])
redis.call('HSET', KEYS[3], ARGV[3], 1)
redis.call('RPUSH', KEYS[4], ARGV[4])
start_next_reply(KEYS[5], KEYS[2], KEYS[4])
return 'queued'
