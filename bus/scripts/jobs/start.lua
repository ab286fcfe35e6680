-- Begins a job that a worker has taken.
-- KEYS board
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 job_id  5 '1': together with all that waits (coalesce)
--      6 when it began (ms), '' for now  7… who is asked for a text: theirs may be the answer
-- -> fenced | superseded | started (or stopped, where its person has said /stop: then it has no company), places emitted by earlier runs and what each holds (1, or a card's id) with '=name' and the entries of the
--    thread's journal, records that are handled together with it
-- Invariant: which jobs are handled together is fixed by the first start of a job and the same in every run of it (rule 9). A job that no message
-- began, a command and an answer have no company, and end that of the messages before them.
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return { 'fenced' } end
local job = fields_of(JOBS, ARGV[2])
if not job then return { 'fenced' } end
if redis.call('SISMEMBER', INTERRUPTED, ARGV[2]) == 1 and not is_told_to_stop() then return { 'superseded' } end
recall_places(ARGV[4]) -- begins with HDEL: a full Redis drains only if jobs run (rule 16)
local is_stopped = is_told_to_stop()
if redis.call('HSETNX', CONVERSATION, 'frozen', 1) == 1 and ARGV[5] == '1' and not is_stopped then
  local load, seq, has_placed = unpack(redis.call('HMGET', CONVERSATION, 'load', 'seq', 'placed'))
  local waiting, taken = {}, 0
  if seq ~= AFTER_ALL and stands_apart(job.r) == '' then
    local first = has_placed and redis.call('ZRANGE', PLACED, 0, 0, 'WITHSCORES')[2] or '+inf'
    waiting = redis.call('ZRANGE', MAILBOX, '-inf', first, 'BYSCORE')
  end
  local is_asked = {}
  for i = 7, #ARGV do is_asked[ARGV[i]] = true end
  load = load or ''
  for _, record in ipairs(waiting) do
    if stands_apart(record) ~= '' or is_asked[part_of(record, 8)] then break end
    redis.call('RPUSH', TOGETHER, record)
    load = load .. as_load(payer_of(record), size_of(record))
    taken = taken + 1
  end
  if taken > 0 then redis.call('ZREMRANGEBYRANK', MAILBOX, 0, taken - 1) end
  if load ~= '' then redis.call('HSET', CONVERSATION, 'load', load) end
  redis.call('DECRBY', WAITING, taken)
  unpark()
end
redis.call('HSET', CONVERSATION, 'began', ARGV[2])
count_write()
note('started', ARGV[4], ARGV[3] .. ' ' .. job.a .. ' ' .. job.d .. ' ' .. ARGV[6])
return { is_stopped and 'stopped' or 'started', redis.call('HGETALL', EMITTED), redis.call('LRANGE', TOGETHER, 0, -1) }
