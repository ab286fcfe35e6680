-- Moves an open-ended note behind a seq: its messages up to there were taken in, or the relay has them no more.
-- KEYS board, notes of their sender
-- ARGV 1 conversation_id  2 sender  3 the seq  4 message_id of the one with that seq, which was taken in; '' where the relay has no more of them
-- -> 1 | 2 some that it counted never came, and are a dead letter | 0 it stands for nothing up to there, or more has come meanwhile
-- The note is removed with its last message.
local seq, open = tonumber(ARGV[3]), open_note(KEYS[OWN])
if not open or seq < open.first then return 0 end
if ARGV[4] == '' and seq < open.last then return 0 end
count_write()
if ARGV[4] ~= '' then open.count = open.count - 1 end
if seq < open.last then
  open.first, open.cursor = seq + 1, ARGV[4]
  put_open_note(KEYS[OWN], open)
  return 1
end
redis.call('HDEL', KEYS[OWN], '\31' .. CONVERSATION_ID)
count_off_note(ARGV[2])
if open.count <= 0 then return 1 end
bury_gone(open.id)
return 2
