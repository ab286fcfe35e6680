-- A reply that can never be committed or sent becomes a dead letter; nothing blocks a conversation for ever (rule 13).
-- KEYS 1 conversation  2 out-box  3 replies  4 sent  5 outbox  6 acks  7 dead  8 gen
-- ARGV 1 conversation_id  2 entry of `replies` or ''  3 consumer  4 client_message_id (when it was committed) or ''  5 reason
-- -> done_before | dropped
local record
if ARGV[2] ~= '' then
  if redis.call('HGET', KEYS[1], 'reply') ~= ARGV[2] then return 'done_before' end
  if not lease_is_mine(KEYS[3], REPLIES_GROUP, ARGV[2], ARGV[3]) then return 'done_before' end
  settle(KEYS[3], REPLIES_GROUP, ARGV[2])
  record = redis.call('LPOP', KEYS[2])
else
  if redis.call('HGET', KEYS[4], 'cmid') ~= ARGV[4] then return 'done_before' end
  record = redis.call('HGET', KEYS[4], 'r')
  redis.call('DEL', KEYS[4])
  redis.call('ZREM', KEYS[5], ARGV[1])
  redis.call('HDEL', KEYS[6], ARGV[4])
end
redis.call('INCR', KEYS[8])
bury(KEYS[7], record, ARGV[5], 0, 0)
redis.call('HDEL', KEYS[1], 'reply')
start_next_reply(KEYS[3], KEYS[1], KEYS[2])
return 'dropped'
