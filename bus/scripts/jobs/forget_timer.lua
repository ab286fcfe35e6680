-- Removes a timer that nobody can read, with its alarm, unless it was set anew since it was read; or an alarm that is left of one.
-- KEYS board, timers of the conversation, alarms
-- ARGV 1 conversation_id  2 the timer's id  3 its record as it was read, '' if there is none
-- -> 1 | 0 it is another by now
if (redis.call('HGET', KEYS[OWN], ARGV[2]) or '') ~= ARGV[3] then return 0 end
count_write()
drop_timer(KEYS[OWN], KEYS[OWN + 1], ARGV[2])
return 1
