-- Commits an encrypted reply: replaces the sessions, stores the exact bytes in the outbox, deletes the reply's entry (P4; rules 12, 14, 17).
-- KEYS board, rate, owner, continuity, one session a device…, the turn of what comes from outside (where this does)
-- ARGV 1 conversation_id  2 entry (of the head that was encrypted)  3 consumer  4 job id and place, with a space
--      5 client_message_id  6 outbox record, or '' for what needs no acknowledgement (stream.start)
--      7 note for its confirmation  8 resend after (ms)  9 sends a second (0: no limit)  10 burst  11 epoch  12 highest write count seen
--      13 stream_id: started (outbox record '') or ended by it, or ''
--      14 version of the owner's row that it was addressed by ('' for a group)  15… session version read, sealed session
-- -> already, stored outbox record, commits | done_before | not_head (the entry is mine, and not what is under way) | fenced
--    | went_back | epoch, current | stale | wait, ms
--    | committed, write count, the stream that this ends or replaces: its stream_id, space, the supervisor that started it, or '', commits
-- Invariant: at most one outbox record a conversation; ciphertext exists only together with the state that made it.
local RATE, OWNER, CONTINUITY, SESSIONS, VERSIONS = KEYS[OWN], KEYS[OWN + 1], KEYS[OWN + 2], OWN + 3, 15
local LAST_SESSION = SESSIONS + (#ARGV - VERSIONS + 1) / 2 - 1
local reply = redis.call('HGET', CONVERSATION, 'reply')
if reply == 'sent' then
  local sent = redis.call('HMGET', SENT, 'cmid', 'r')
  if sent[1] == ARGV[5] then return { 'already', sent[2], tonumber(redis.call('HGET', CONTINUITY, 'commits') or 0) } end
end
if not reply then return { 'done_before' } end
local is_mine = lease_is_mine(REPLIES, REPLIES_GROUP, ARGV[2], ARGV[3])
if reply ~= ARGV[2] then return { is_mine and 'not_head' or 'done_before' } end
if not is_mine then return { 'fenced' } end
local count, epoch = unpack(redis.call('MGET', WRITE_COUNT, EPOCH))
if tonumber(count or 0) < tonumber(ARGV[12]) then return { 'went_back' } end
epoch = epoch or '0'
if epoch ~= ARGV[11] then return { 'epoch', tonumber(epoch) } end
if ARGV[14] ~= '' and not is_current(OWNER, ARGV[14]) then return { 'stale' } end
for i = SESSIONS, LAST_SESSION do
  if not is_current(KEYS[i], ARGV[VERSIONS + (i - SESSIONS) * 2]) then return { 'stale' } end
end
local now = now_ms()
local rate, burst, tokens = tonumber(ARGV[9]), tonumber(ARGV[10]), 0
if rate > 0 and ARGV[6] ~= '' then
  local bucket = redis.call('HMGET', RATE, 'tokens', 'at')
  local passed = now - tonumber(bucket[2] or now)
  -- A clock that was set back counts as a full bucket: who waited for it to come round again would be silent for as long.
  tokens = passed < 0 and burst or math.min(burst, tonumber(bucket[1] or burst) + passed * rate / 1000)
  if tokens < 1 then return { 'wait', math.ceil((1 - tokens) * 1000 / rate) } end
end

settle(REPLIES, REPLIES_GROUP, ARGV[2])
local write_count = count_write()
local commits = redis.call('HINCRBY', CONTINUITY, 'commits', '1')
redis.call('LTRIM', OUT_BOX, '1', '-1')
for i = SESSIONS, LAST_SESSION do
  local at = VERSIONS + (i - SESSIONS) * 2
  store_session(KEYS[i], ARGV[at], ARGV[at + 1], ARGV[11])
end
local job, place = string.match(ARGV[4], '^(%S*) ?(.*)$')
if KEYS[LAST_SESSION + 1] then leave_turn(KEYS[LAST_SESSION + 1], job) end
note('encrypted', job, place .. ' ' .. ARGV[5])
local stream = ARGV[13] ~= '' and redis.call('HGET', STREAMS, CONVERSATION_ID) or ''
if ARGV[6] == '' then
  begin_stream(ARGV[13], ARGV[3])
  return { 'committed', write_count, stream, commits }
end
if stream ~= '' then redis.call('HDEL', STREAMS, CONVERSATION_ID) end
put_sent(ARGV[5], ARGV[6], ARGV[3], ARGV[4], now + tonumber(ARGV[8]), ARGV[7])
if rate > 0 then redis.call('HSET', RATE, 'tokens', tostring(tokens - 1), 'at', now) end
return { 'committed', write_count, stream, commits }
