-- Redis went back in time: sessions of the epochs so far are read with, never sent with (DESIGN rule 17).
-- Prekey ids go on far beyond those that may have been given out since, and the signed prekey is to be replaced (PROTOCOL §5.5).
-- KEYS 1 epoch  2 gen  3 interrupted  4 prekey_state
-- ARGV 1 epoch known  2 highest gen seen  3 how far signed and  4 one-time prekey ids go on
-- -> epoch, gen
-- Invariant: supervisors that notice the same thing raise once.
redis.call('SREM', KEYS[3], '') -- the first write takes no memory: a full Redis may go back too (rule 16)
local epoch = tonumber(redis.call('GET', KEYS[1]) or 0)
if epoch <= tonumber(ARGV[1]) then
  epoch = tonumber(ARGV[1]) + 1
  redis.call('SET', KEYS[1], epoch)
  redis.call('HSET', KEYS[4], 'rotate_through', redis.call('HINCRBY', KEYS[4], 'signed', ARGV[3]))
  redis.call('HINCRBY', KEYS[4], 'one_time', ARGV[4])
end
local generation = math.max(tonumber(redis.call('GET', KEYS[2]) or 0), tonumber(ARGV[2])) + 1
redis.call('SET', KEYS[2], generation)
return { epoch, generation }
