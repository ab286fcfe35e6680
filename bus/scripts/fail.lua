-- A job has failed: it waits in `due` (its conversation stays busy), or becomes a dead letter and the next one starts.
-- KEYS 1 jobs  2 conversation  3 mailbox  4 emitted  5 due  6 dead  7 gen
-- ARGV 1 entry (fencing token)  2 consumer  3 conversation_id  4 delay (ms), or '' for a dead letter  5 reason
--      6 most deliveries
-- -> fenced | retry | dead
if not lease_is_mine(KEYS[1], JOBS_GROUP, ARGV[1], ARGV[2]) then return 'fenced' end
local fields = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1][2]
local record, attempt, deliveries = fields[2], fields[4], fields[6]
settle(KEYS[1], JOBS_GROUP, ARGV[1])
redis.call('INCR', KEYS[7])
if ARGV[4] == '' or tonumber(deliveries) >= tonumber(ARGV[6]) then
  bury(KEYS[6], record, ARGV[5], attempt, deliveries)
  start_next_job(KEYS[1], KEYS[2], KEYS[3], KEYS[4])
  return 'dead'
end
redis.call('HSET', KEYS[2], 'entry', 'due', 'retry', record, 'retry_a', attempt + 1, 'retry_d', deliveries + 1)
redis.call('ZADD', KEYS[5], now_ms() + tonumber(ARGV[4]), ARGV[3])
return 'retry'
