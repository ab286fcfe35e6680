-- Redis went back in time: sessions of the epochs so far are read with, never sent with (DESIGN rule 17).
-- KEYS 1 epoch  2 gen  3 interrupted
-- ARGV 1 epoch known  2 highest gen seen
-- -> epoch, gen
-- Invariant: supervisors that notice the same thing raise once.
redis.call('SREM', KEYS[3], '') -- the first write takes no memory: a full Redis may go back too (rule 16)
local epoch = tonumber(redis.call('GET', KEYS[1]) or 0)
if epoch <= tonumber(ARGV[1]) then
  epoch = tonumber(ARGV[1]) + 1
  redis.call('SET', KEYS[1], epoch)
end
local generation = math.max(tonumber(redis.call('GET', KEYS[2]) or 0), tonumber(ARGV[2])) + 1
redis.call('SET', KEYS[2], generation)
return { epoch, generation }
