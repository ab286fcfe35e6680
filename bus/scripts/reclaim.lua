-- A job whose worker is gone (lease expired, or its death was seen) runs again under a new entry: the old one is fenced.
-- KEYS 1 jobs  2 conversation  3 mailbox  4 emitted  5 dead  6 gen
-- ARGV 1 entry  2 consumer that held it  3 idle time (ms) from which it counts as lost (0: its death was seen)
--      4 most deliveries
-- -> kept | restarted | dead
local pending = redis.call('XPENDING', KEYS[1], JOBS_GROUP, ARGV[1], ARGV[1], 1, ARGV[2])
if #pending == 0 or pending[1][3] < tonumber(ARGV[3]) then return 'kept' end
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
settle(KEYS[1], JOBS_GROUP, ARGV[1])
if not entry then return 'kept' end
redis.call('INCR', KEYS[6])
local record, attempt, deliveries = entry[2][2], entry[2][4], tonumber(entry[2][6])
if deliveries >= tonumber(ARGV[4]) then
  bury(KEYS[5], record, 'deliveries', attempt, deliveries)
  start_next_job(KEYS[1], KEYS[2], KEYS[3], KEYS[4])
  return 'dead'
end
start_job(KEYS[1], KEYS[2], record, attempt, deliveries + 1)
return 'restarted'
