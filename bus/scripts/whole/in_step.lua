-- Runs one command of a restore of an operator's Redis if its step is the present one (bus/whole/restore_switch.py); a late one changes nothing.
-- KEYS 1 seal, keys of the command (UNLINK takes any number)
-- ARGV 1 step, '' for none  2 UNLINK, RENAME, HSET or HDEL, more words
-- -> 1 | 0 it is another step's time
-- Invariant: the old store is removed only while it is being cleared, the new one is removed only while nobody has decided for it.
if (redis.call('HGET', KEYS[1], 'restoring') or '') ~= ARGV[1] then return 0 end
if ARGV[2] == 'UNLINK' then
  for at = 2, #KEYS do redis.call('UNLINK', KEYS[at]) end
elseif ARGV[2] ~= 'RENAME' then
  redis.call(ARGV[2], KEYS[2], unpack(ARGV, 3))
elseif redis.call('EXISTS', KEYS[2]) == 1 then -- it may have been moved before
  redis.call('RENAME', KEYS[2], KEYS[3])
end
return 1
