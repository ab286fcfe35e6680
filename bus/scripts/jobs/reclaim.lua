-- Starts a job again whose worker is gone (its lease expired, or its death was seen), under a new entry, which fences the old one.
-- KEYS board
-- ARGV 1 conversation_id  2 entry  3 consumer that held it  4 job_id
--      5 idle time (ms) from which it counts as lost (0: its death was seen)  6 most deliveries
--      7 '1': the worker died by itself, which is a strike for what it was running (rule 8); 'many': so it did, and it ran many
--      8 why it ends now ('timeout'), or ''  9 an apology (reply record) if it becomes a dead letter, or ''
-- -> kept | restarted | dead, reason
local pending = redis.call('XPENDING', JOBS, JOBS_GROUP, ARGV[2], ARGV[2], 1, ARGV[3])
if #pending == 0 or pending[1][3] < tonumber(ARGV[5]) then return { 'kept' } end
local job = fields_of(JOBS, ARGV[2])
-- The first delivery of a job begins when it is taken, mostly without a word (workers/process/runner.py); later ones tell.
local began = job and (job.d == '1' or redis.call('HGET', CONVERSATION, 'began') == ARGV[2])
settle(JOBS, JOBS_GROUP, ARGV[2])
if not job then return { 'kept' } end
count_write()
local strikes = tonumber(job.s or 0)
-- One of many is suspected first (-1): it runs with few others next, and what was one of few alone. So poison is found soon, and what is none
-- does not wait until all others were run one by one.
if ARGV[7] == 'many' and strikes == 0 and began then
  strikes = -1
elseif ARGV[7] ~= '0' and began then
  strikes = math.max(strikes, 0) + 1
end
local reason
if strikes >= 2 then
  reason = 'poison'
elseif ARGV[8] ~= '' then
  reason = ARGV[8]
elseif deliveries_that_count(job) >= tonumber(ARGV[6]) then
  reason = 'deliveries'
end
if reason then
  give_up(ARGV[2], job, ARGV[4], reason, reason, ARGV[9])
  return { 'dead', reason }
end
note('reclaimed', ARGV[4], ARGV[3])
local started = start_job(job.r, job.a, job.d + 1, strikes)
if redis.call('SREM', INTERRUPTED, ARGV[2]) == 1 then interrupt(started) end
return { 'restarted' }
