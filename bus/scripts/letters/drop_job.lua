-- Deletes the dead letter of a job that is given up, and with it the question that the job was to answer: no other may, so it would stay open for nobody.
-- KEYS board, waits, timers of the conversation, alarms
-- ARGV 1 conversation_id  2 entry of the dead letters  3 job_id  4 why, as in `release`
-- -> 1 | 0 it is not there
local WAITS, TIMERS, ALARMS = unpack(KEYS, OWN, OWN + 2)
if redis.call('XDEL', DEAD, ARGV[2]) == 0 then return 0 end
count_write()
local fields = redis.call('HGETALL', WAITS)
for i = 1, #fields, 2 do
  local id = string.match(fields[i], '^bound:(.*)$')
  if id and fields[i + 1] == ARGV[3] then
    drop_wait(WAITS, id)
    drop_timer(TIMERS, ALARMS, id)
  end
end
note('given_up', ARGV[3], ARGV[4])
return 1
