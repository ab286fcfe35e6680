-- Notes a result of a running thread in its journal, so that a later run of it has the result without the work.
-- KEYS board
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 name  5 entry of the journal  6 bytes for which there must be room beside it
--      7 most bytes of the journal  8 '1': only where the name has no entry
-- -> fenced | already (it has another entry) | full (the journal has no room) | noted
-- Invariant: the running job's journal is its own thread's, and within its bound.
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
local before = redis.call('HGET', EMITTED, '=' .. ARGV[4])
if before == ARGV[5] then return 'noted' end
if before and ARGV[8] == '1' then return 'already' end
local more = size_of(ARGV[5]) - (before and size_of(before) or 0)
local had = tonumber(redis.call('HGET', LOAD_HERE, 'journal') or 0)
if had + more + tonumber(ARGV[6]) > tonumber(ARGV[7]) then return 'full' end
count_write()
redis.call('HSET', EMITTED, '=' .. ARGV[4], ARGV[5])
count_journal(more)
return 'noted'
