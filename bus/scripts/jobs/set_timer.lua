-- Sets a timer without a job: one that handlers declare (`every`).
-- KEYS board, timers of the conversation, alarms
-- ARGV 1 conversation_id  2 the timer's id  3 its record as it was read, '' if there was none  4 when it is due (ms)  5 its record
-- -> 1 | 0 it is another by now
if (redis.call('HGET', KEYS[OWN], ARGV[2]) or '') ~= ARGV[3] then return 0 end
count_write()
put_timer(KEYS[OWN], KEYS[OWN + 1], ARGV[2], ARGV[4], ARGV[5])
return 1
