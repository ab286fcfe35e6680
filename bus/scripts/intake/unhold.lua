-- Removes the note of a message that was taken in, or that the relay has no more.
-- KEYS board, notes of its sender
-- ARGV 1 conversation_id  2 message_id  3 sender  4 '1': the relay has it no more
-- -> 1 | 0 it was not noted
if redis.call('HDEL', KEYS[OWN], ARGV[2]) == 0 then return 0 end
count_write()
count_off_note(ARGV[3])
if ARGV[4] == '1' then bury_gone(ARGV[2]) end
return 1
