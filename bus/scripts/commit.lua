-- A reply has been encrypted: sessions move, the exact bytes stand in the outbox, the reply's entry goes (P4; rules 12, 14).
-- KEYS 1 conversation  2 out-box  3 replies  4 sent  5 outbox  6 acks  7 rate  8 gen  9… one session a device
-- ARGV 1 entry  2 consumer  3 reply record (the head that was encrypted)  4 conversation_id  5 client_message_id
--      6 outbox record, or '' for what needs no acknowledgement (stream.start)
--      7 resend after (ms)  8 sends a second (0: no limit)  9 burst  10 epoch  11… session version read, sealed session
-- -> already, stored outbox record | done_before | not_head | fenced | stale | wait, ms | committed
-- Invariant: at most one outbox record a conversation; ciphertext exists only together with the state that made it.
local reply = redis.call('HGET', KEYS[1], 'reply')
if reply == 'sent' then
  local sent = redis.call('HMGET', KEYS[4], 'cmid', 'r')
  if sent[1] == ARGV[5] then return { 'already', sent[2] } end
end
if reply ~= ARGV[1] then return { 'done_before' } end
if redis.call('LINDEX', KEYS[2], 0) ~= ARGV[3] then return { 'not_head' } end
if not lease_is_mine(KEYS[3], REPLIES_GROUP, ARGV[1], ARGV[2]) then return { 'fenced' } end
for i = 9, #KEYS do
  if not session_is_current(KEYS[i], ARGV[11 + (i - 9) * 2]) then return { 'stale' } end
end
local now = now_ms()
local rate, burst, tokens = tonumber(ARGV[8]), tonumber(ARGV[9]), 0
if rate > 0 and ARGV[6] ~= '' then
  local bucket = redis.call('HMGET', KEYS[7], 'tokens', 'at')
  tokens = math.min(burst, tonumber(bucket[1] or burst) + math.max(0, now - tonumber(bucket[2] or now)) * rate / 1000)
  if tokens < 1 then return { 'wait', math.ceil((1 - tokens) * 1000 / rate) } end
end

settle(KEYS[3], REPLIES_GROUP, ARGV[1])
redis.call('INCR', KEYS[8])
redis.call('LPOP', KEYS[2])
for i = 9, #KEYS do
  local at = 11 + (i - 9) * 2
  store_session(KEYS[i], ARGV[at], ARGV[at + 1], ARGV[10])
end
if ARGV[6] == '' then
  redis.call('HDEL', KEYS[1], 'reply')
  start_next_reply(KEYS[3], KEYS[1], KEYS[2])
  return { 'committed' }
end
redis.call('HSET', KEYS[1], 'reply', 'sent')
redis.call('HSET', KEYS[4], 'cmid', ARGV[5], 'r', ARGV[6], 'holder', ARGV[2])
redis.call('ZADD', KEYS[5], now + tonumber(ARGV[7]), ARGV[4])
redis.call('HSET', KEYS[6], ARGV[5], ARGV[4])
if rate > 0 then redis.call('HSET', KEYS[7], 'tokens', tostring(tokens - 1), 'at', now) end
return { 'committed' }
