-- Counts the bytes of a message that a former version has put into quarantine for its signer, or without room cuts it to its evidence.
-- KEYS 1 quarantined message  2 kept  3 write count
-- ARGV 1 evidence  2 most bytes of frames and plaintexts  3 those of unsigned ones  4 '1': it may be read later
-- -> 0 nothing was to be done | 1 it is charged | 2 it was cut
local MESSAGE, KEPT = KEYS[1], KEYS[2]
local from, kept, signed, verified = unpack(redis.call('HMGET', MESSAGE, 'from', 'kept', 'signed', 'verified'))
if kept or redis.call('EXISTS', MESSAGE) == 0 then return 0 end
local is_signed = signed == '1' or verified == '1'
local payer, bytes = is_signed and 's:' .. (from or '') or 'unsigned', 0
for _, field in ipairs({ 'frame', 'copy', 'plaintext' }) do bytes = bytes + redis.call('HSTRLEN', MESSAGE, field) end
local total, theirs = unpack(redis.call('HMGET', KEPT, 'total', payer))
total, theirs = tonumber(total or 0), tonumber(theirs or 0)
local fits = ARGV[4] == '1' and total + bytes <= tonumber(ARGV[2])
if is_signed then
  fits = fits and theirs < (tonumber(ARGV[2]) - total) / 4
else
  fits = fits and theirs + bytes <= tonumber(ARGV[3])
end
if not fits then
  redis.call('HDEL', MESSAGE, 'frame', 'copy', 'plaintext') -- first: a full Redis lets this through (rule 16)
  redis.call('HSET', MESSAGE, 'frame', '', 'plaintext', '', 'evidence', ARGV[1], 'kept', payer .. ' 0')
elseif bytes > 0 then
  redis.call('HSET', MESSAGE, 'evidence', ARGV[1], 'kept', payer .. ' ' .. bytes)
  redis.call('HINCRBY', KEPT, payer, bytes)
  redis.call('HINCRBY', KEPT, 'total', bytes)
else
  redis.call('HSET', MESSAGE, 'kept', payer .. ' 0')
end
redis.call('INCR', KEYS[3])
return fits and 1 or 2
