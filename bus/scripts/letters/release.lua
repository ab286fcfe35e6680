-- Deletes a message in quarantine that is given up, or a dead letter that is no job (of one: drop_job.lua).
-- KEYS 1 quarantine or dead letters  2 quarantined message ('' for a dead letter: the same key as 1)  3 wanted  4 write count  5 ledger
--      6 what waits for what  7 kept
-- ARGV 1 name of the message, or entry of the dead letters  2 'quarantine' or 'dead'  3 message_id  4 why: 'operator', 'copy' or 'overflow'
-- -> 1 | 0 it is not there
local gone
if ARGV[2] == 'dead' then
  gone = redis.call('XDEL', KEYS[1], ARGV[1])
else
  gone = redis.call('ZREM', KEYS[1], ARGV[1])
  waits_no_longer(KEYS[6], KEYS[2], ARGV[1])
  release_kept(KEYS[7], KEYS[2])
  redis.call('DEL', KEYS[2])
  redis.call('SREM', KEYS[3], ARGV[1])
end
if gone == 1 then
  redis.call('INCR', KEYS[4])
  note_in(KEYS[5], 'given_up', ARGV[3], ARGV[4])
end
return gone
