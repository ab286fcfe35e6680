-- What stands in quarantine or among the dead letters is given up by the operator.
-- KEYS 1 quarantine or dead letters  2 quarantined message ('' for a dead letter: the same key as 1)  3 wanted  4 gen
-- ARGV 1 message_id, or entry of the dead letters  2 'quarantine' or 'dead'
-- -> 1 | 0 it is not there
if ARGV[2] == 'dead' then
  local gone = redis.call('XDEL', KEYS[1], ARGV[1])
  if gone == 1 then redis.call('INCR', KEYS[4]) end
  return gone
end
local gone = redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
if gone == 1 then redis.call('INCR', KEYS[4]) end
return gone
