-- Ends a failed run: puts the job into `due` (its conversation stays busy), or makes it a dead letter and starts the next one.
-- KEYS board
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 job_id  5 delay (ms), or '' for a dead letter  6 reason
--      7 most deliveries  8 an apology (reply record) if it becomes a dead letter, or ''
--      9 what the run takes from the job: 'attempt' (and its delivery), 'delivery' (it asked to be run again), 'nothing' (it has waited for
--      something outside)
-- -> fenced | retry | superseded (by a later message, which runs instead of the retry) | dead
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
local job = fields_of(JOBS, ARGV[2])
if not job then return 'fenced' end -- its entry is lost; the audit starts the conversation again
settle(JOBS, JOBS_GROUP, ARGV[2])
count_write()
local has_waited = ARGV[9] == 'nothing'
if ARGV[5] == '' or not has_waited and deliveries_that_count(job) >= tonumber(ARGV[7]) then
  give_up(ARGV[2], job, ARGV[4], ARGV[6], ARGV[6] .. ' ' .. ARGV[3] .. ' ' .. job.a .. ' ' .. job.d, ARGV[8])
  return 'dead'
end
local is_stopped = is_told_to_stop() -- then its next run, at once, says so
if redis.call('SISMEMBER', INTERRUPTED, ARGV[2]) == 1 and not is_stopped then
  redis.call('HDEL', CONVERSATION, 'p:' .. ARGV[4], 'j:' .. ARGV[4])
  note('superseded', ARGV[4])
  start_next_job(ARGV[2])
  return 'superseded'
end
note('failed', ARGV[4], ARGV[6] .. ' ' .. ARGV[5] .. ' ' .. ARGV[3] .. ' ' .. job.a .. ' ' .. job.d)
if has_waited then redis.call('HINCRBY', CONVERSATION, 'waited', 1) end
redis.call('HSET', CONVERSATION, 'entry', 'due', 'retry', job.r, 'retry_a', job.a + (ARGV[9] == 'attempt' and 1 or 0), 'retry_d', job.d + 1,
  'retry_s', job.s or 0, 'retry_j', ARGV[4])
redis.call('ZADD', DUE, now_ms() + (is_stopped and 0 or tonumber(ARGV[5])), CONVERSATION_ID)
return 'retry'
