-- The relay has stored what we sent: the outbox record goes, the next reply of the conversation starts.
-- KEYS 1 conversation  2 taken  3 out-box  4 replies  5 sent  6 outbox  7 acks  8 gen
--      9 sent message
-- ARGV 1 conversation_id  2 client_message_id  3 conversation_seq of the ack  4 message_id  5 kept for (s)
-- -> false (done before) | the outbox record
local sent = redis.call('HMGET', KEYS[5], 'cmid', 'r')
if sent[1] ~= ARGV[2] then
  redis.call('HDEL', KEYS[7], ARGV[2])
  return false
end
redis.call('DEL', KEYS[5])
redis.call('INCR', KEYS[8])
redis.call('ZREM', KEYS[6], ARGV[1])
redis.call('HDEL', KEYS[7], ARGV[2])
redis.call('SET', KEYS[9], ARGV[1], 'EX', ARGV[5]) -- for recall and quote
local seq, next = tonumber(ARGV[3]), next_seq(KEYS[1])
if seq == next then
  take_seq(KEYS[1], KEYS[2], seq)
elseif seq > next then
  redis.call('ZADD', KEYS[2], seq, seq)
end
redis.call('HDEL', KEYS[1], 'reply')
start_next_reply(KEYS[4], KEYS[1], KEYS[3])
return sent[2]
