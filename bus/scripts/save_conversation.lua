-- One conversation as it stands at this moment, with its entries in `jobs` and `replies`; nothing is written (bus/snapshot.py).
-- KEYS board
-- ARGV 1 conversation_id  2 most bytes of what waits  3 '1': without what waits, which was read before
-- -> large (more waits) | row, ids, until when they are kept (ms, -1 for ever), taken, until when, emitted, sent, load, fields of the
--    job under way, fields of the reply under way, 1 if that job is superseded, mailbox, parked, together, out-box
local function waits()
  local found, bytes = { {}, {}, {}, {} }, 0
  if ARGV[3] == '1' then return found, 0 end
  found = { redis.call('ZRANGE', MAILBOX, 0, -1, 'WITHSCORES'), redis.call('ZRANGE', PARKED, 0, -1, 'WITHSCORES'),
    redis.call('LRANGE', TOGETHER, 0, -1), redis.call('LRANGE', OUT_BOX, 0, -1) }
  for _, records in ipairs(found) do
    for _, record in ipairs(records) do bytes = bytes + #record end
  end
  return found, bytes
end

local function entry_of(stream, entry)
  if not entry or not string.find(entry, '^%d+%-%d+$') then return {} end
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  return found and found[2] or {}
end

local waiting, bytes = waits()
if bytes > tonumber(ARGV[2]) then return { 'large' } end
local entry, reply = unpack(redis.call('HMGET', CONVERSATION, 'entry', 'reply'))
return { redis.call('HGETALL', CONVERSATION), redis.call('GET', IDS) or '', redis.call('PEXPIRETIME', IDS),
  redis.call('ZRANGE', TAKEN, 0, -1), redis.call('PEXPIRETIME', TAKEN), redis.call('HKEYS', EMITTED),
  redis.call('HGETALL', SENT), redis.call('HGETALL', LOAD_HERE), entry_of(JOBS, entry), entry_of(REPLIES, reply),
  entry and redis.call('SISMEMBER', INTERRUPTED, entry) or 0, waiting[1], waiting[2], waiting[3], waiting[4] }
