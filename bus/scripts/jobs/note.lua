-- Notes a result of a running thread in its journal, so that a later run of it has the result without the work; and with it, a change of the store.
-- KEYS board; store, where there is a change; the budget of each subject that pays for it
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 name  5 entry of the journal  6 bytes for which there must be room beside it
--      7 most bytes of the journal  8 '1': only where the name has no entry  9 the epoch in which the thread's message was taken in, where the entry
--      says that something begins which may be done once; else ''  10 how many tokens each subject pays for it
--      then, of a change, the words of settle's effect: 11 key of the owner's  12 beginning of the record that was read  13 its record
-- -> fenced | already (it has another entry) | raised (Redis went back since: what the thread had noted may be lost) | full (the journal has no room)
--    | changed (the store has another value by now) | store_full | noted
-- Invariant: the running job's journal is its own thread's, and within its bound; a change is written together with its entry, so once; and so is
-- what is paid.
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
local before = redis.call('HGET', EMITTED, '=' .. ARGV[4])
if before == ARGV[5] then return 'noted' end
if before and ARGV[8] == '1' then return 'already' end
if ARGV[9] ~= '' and tonumber(redis.call('GET', EPOCH) or 0) > tonumber(ARGV[9]) then return 'raised' end
local more = size_of(ARGV[5]) - (before and size_of(before) or 0)
local had = tonumber(redis.call('HGET', LOAD_HERE, 'journal') or 0)
if had + more + tonumber(ARGV[6]) > tonumber(ARGV[7]) then return 'full' end
local why = ARGV[11] and store_refuses(KEYS[OWN], ARGV[11], ARGV[12], ARGV[13], { keys = 0, bytes = 0 })
if why then return why end
if before then redis.call('HDEL', EMITTED, '=' .. ARGV[4]) end -- first: a full Redis takes the result of what has begun, which nobody could make again
count_write()
redis.call('HSET', EMITTED, '=' .. ARGV[4], ARGV[5])
count_journal(more)
if ARGV[11] then put_in_store(KEYS[OWN], ARGV[11], ARGV[13]) end
for i = OWN + (ARGV[11] and 1 or 0), #KEYS do charge(KEYS[i], ARGV[10]) end
return 'noted'
