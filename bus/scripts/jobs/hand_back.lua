-- Gives an unfinished job back; its attempt does not count, its delivery does if its handler had begun.
-- KEYS board
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 job_id  5 '1': its handler had begun  6 most deliveries
--      7 an apology (reply record) if it becomes a dead letter, or ''
-- -> fenced | done | dead
-- Invariant: the next worker can tell that the job may have sent something (rule 10).
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
local job = fields_of(JOBS, ARGV[2])
if not job then return 'fenced' end
settle(JOBS, JOBS_GROUP, ARGV[2])
count_write()
if ARGV[5] == '1' and deliveries_that_count(job) >= tonumber(ARGV[6]) then
  give_up(ARGV[2], job, ARGV[4], 'deliveries', 'deliveries ' .. ARGV[3] .. ' ' .. job.a .. ' ' .. job.d, ARGV[7])
  return 'dead'
end
note('handed_back', ARGV[4], ARGV[3])
local started = start_job(job.r, job.a, job.d + ARGV[5], job.s or 0, job.k)
if redis.call('SREM', INTERRUPTED, ARGV[2]) == 1 then interrupt(started) end
return 'done'
