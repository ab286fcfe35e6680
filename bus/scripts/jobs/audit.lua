-- Starts a busy conversation with nothing under way again: our scripts leave none so, but a stream may be lost or trimmed.
-- KEYS board, behind
-- ARGV 1 conversation_id
-- -> how many faults were mended
local mended = 0
local state = redis.call('HMGET', CONVERSATION, 'entry', 'reply', 'retry')
local entry, reply = state[1], state[2]
local lost = entry and entry ~= 'due' and not fields_of(JOBS, entry)
local BEHIND = KEYS[OWN]
local has_placed = redis.call('EXISTS', PLACED) == 1
if lost or (entry == 'due' and not state[3]) or (not entry and redis.call('ZCARD', MAILBOX) > 0) then
  redis.call('ZREM', DUE, CONVERSATION_ID)
  if lost then redis.call('XACK', JOBS, JOBS_GROUP, entry) end -- who has it still is fenced: what is here is the next job's now
  note('lost', '', CONVERSATION_ID)
  for _, record in ipairs(redis.call('LRANGE', TOGETHER, 0, -1)) do bury(record, 'lost', 1, 1) end -- these are still there
  start_next_job(entry or '')
  mended = mended + 1
elseif not entry and has_placed then -- a former version, which knows of no placed jobs, has let it rest
  if is_idle() then begin_work() end
  redis.call('HSET', CONVERSATION, 'placed', 1)
  start_next_job('')
  mended = mended + 1
elseif entry == 'due' and not redis.call('ZSCORE', DUE, CONVERSATION_ID) then
  redis.call('ZADD', DUE, now_ms(), CONVERSATION_ID)
  mended = mended + 1
end
if reply == 'sent' and redis.call('EXISTS', SENT) == 1 then
  if not redis.call('ZSCORE', OUTBOX, CONVERSATION_ID) then
    redis.call('ZADD', OUTBOX, now_ms(), CONVERSATION_ID)
    mended = mended + 1
  end
elseif reply and (reply == 'sent' or not fields_of(REPLIES, reply)) then
  redis.call('HDEL', CONVERSATION, 'reply')
  start_next_reply()
  mended = mended + 1
elseif not reply and redis.call('LLEN', OUT_BOX) > 0 then
  start_next_reply()
  mended = mended + 1
end
if mended > 0 then count_write() end
if redis.call('EXISTS', PLACED) == 1 then
  redis.call('ZADD', BEHIND, now_ms(), CONVERSATION_ID)
else
  redis.call('ZREM', BEHIND, CONVERSATION_ID)
end
if is_idle() then rest() else begin_work() end
return mended
