-- A job that was taken and not finished goes back; its attempt is not counted.
-- KEYS board
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 job_id
-- -> fenced | done
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
local job = fields_of(JOBS, ARGV[2])
if not job then return 'fenced' end
settle(JOBS, JOBS_GROUP, ARGV[2])
count_write()
note('handed_back', ARGV[4], ARGV[3])
local started = start_job(job.r, job.a, job.d, job.s or 0)
if redis.call('SREM', INTERRUPTED, ARGV[2]) == 1 then interrupt(started) end
return 'done'
