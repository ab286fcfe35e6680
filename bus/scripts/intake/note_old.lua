-- Notes an unreadable message with a seq below its conversation's `next`: most likely it was answered long ago, and the relay offers
-- again what it keeps. The note has what is needed to ask for it again, and no content; it is no failure (PROTOCOL §5.4).
-- KEYS 1 old messages  2 quarantined message  3 write count  4 ledger
-- ARGV 1 message_id  2 conversation_id  3 seq  4 reason  5 now (ms)  6 most notes that are kept
-- -> duplicate (it stands in quarantine, or was noted before) | old, write count
local member = ARGV[2] .. '\0' .. ARGV[3] .. '\0' .. ARGV[1]
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('ZSCORE', KEYS[1], member) then return { 'duplicate' } end
local write_count = redis.call('INCR', KEYS[3])
redis.call('ZADD', KEYS[1], ARGV[5], member)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[6]))
note_in(KEYS[4], 'old', ARGV[1], ARGV[2] .. ' ' .. ARGV[4] .. ' ' .. ARGV[3])
return { 'old', write_count }
