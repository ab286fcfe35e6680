-- A message below what its conversation has come to can no longer be read: most likely it was answered long ago, and the relay has begun
-- anew with what it keeps. It is noted by what asks for it again, without its content, and is no failure (PROTOCOL §5.4).
-- KEYS 1 old messages  2 quarantined message  3 gen  4 ledger
-- ARGV 1 message_id  2 conversation_id  3 seq  4 reason  5 now (ms)  6 most notes that are kept
-- -> duplicate (it stands in quarantine, or was noted before) | old, gen
local member = ARGV[2] .. '\0' .. ARGV[3] .. '\0' .. ARGV[1]
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('ZSCORE', KEYS[1], member) then return { 'duplicate' } end
local generation = redis.call('INCR', KEYS[3])
redis.call('ZADD', KEYS[1], ARGV[5], member)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[6]))
note_in(KEYS[4], 'old', ARGV[1], ARGV[2] .. ' ' .. ARGV[4] .. ' ' .. ARGV[3])
return { 'old', generation }
