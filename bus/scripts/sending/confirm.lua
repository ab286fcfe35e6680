-- Deletes an outbox record that the relay has stored, and starts the next reply of the conversation.
-- KEYS board
-- ARGV 1 conversation_id  2 client_message_id  3 conversation_seq of the ack  4 message_id (which the ledger keeps)
--      5 when it went out last (ms), '' if another process sent it
-- -> false (done before) | the note of its commit, the outbox record if there is no note
local sent = redis.call('HMGET', SENT, 'cmid', 'note', 'what')
if sent[1] ~= ARGV[2] then
  redis.call('HDEL', ACKS, ARGV[2])
  return false
end
local has_note = sent[2] and sent[2] ~= ''
local record = has_note and '' or redis.call('HGET', SENT, 'r') -- its commit was of an older version, or of a dead letter
drop_sent(ARGV[2])
count_write()
local seq, next, entry = tonumber(ARGV[3]), unpack(redis.call('HMGET', CONVERSATION, 'next', 'entry'))
next = tonumber(next or 1)
if seq == next then
  take_seq(seq, next)
elseif seq > next then
  redis.call('ZADD', TAKEN, seq, seq)
  redis.call('EXPIRE', TAKEN, IDLE_SECONDS)
end
local job, place = string.match(sent[3] or '', '^(%S*) ?(.*)$')
is_said(place)
note('acknowledged', job, place .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
end_reply(entry)
return { has_note and sent[2] or '', record }
