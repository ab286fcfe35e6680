-- A job that was taken but not started goes back as if never taken; nothing is counted against it.
-- KEYS 1 jobs  2 conversation  3 gen
-- ARGV 1 entry (fencing token)  2 consumer
-- -> fenced | done
if not lease_is_mine(KEYS[1], JOBS_GROUP, ARGV[1], ARGV[2]) then return 'fenced' end
local fields = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1][2]
settle(KEYS[1], JOBS_GROUP, ARGV[1])
redis.call('INCR', KEYS[3])
start_job(KEYS[1], KEYS[2], fields[2], fields[4], fields[6])
return 'done'
