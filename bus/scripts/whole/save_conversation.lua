-- Reads one conversation at this moment, with its entries in `jobs` and `replies`; writes nothing (bus/whole/snapshot.py).
-- KEYS board, state, waits, history
-- ARGV 1 conversation_id  2 most bytes of what waits  3 SHA-1 (40 hexadecimal digits each) of what was read before: it is left out
-- -> large (more waits) | row, ids, until when they are kept (ms, -1 for ever), taken, until when, emitted, sent, load, fields of the
--    job under way, fields of the reply under way, 1 if that job is superseded, mailbox, parked, together, out-box, length of the out-box, state,
--    placed, names and values in emitted that have one of their own, waits, history
-- Invariant: everything that waits at this moment was read before or is in this answer, so nothing that `ids` and `next` know is missing.
local found = { redis.call('ZRANGE', MAILBOX, 0, -1, 'WITHSCORES'), redis.call('ZRANGE', PARKED, 0, -1, 'WITHSCORES'),
  redis.call('LRANGE', TOGETHER, 0, -1), redis.call('LRANGE', OUT_BOX, 0, -1) }
local read_before = {}
for at = 1, #ARGV[3], 40 do read_before[string.sub(ARGV[3], at, at + 39)] = true end

-- `step`: 2 where each record has its score behind it.
local function without_what_was_read(records, step)
  if ARGV[3] == '' then return records end
  local left = {}
  for at = 1, #records, step do
    if not read_before[redis.sha1hex(records[at])] then
      for with = at, at + step - 1 do left[#left + 1] = records[with] end
    end
  end
  return left
end

local waiting, bytes = {}, 0
for place, records in ipairs(found) do
  waiting[place] = without_what_was_read(records, place <= 2 and 2 or 1)
  for _, record in ipairs(waiting[place]) do bytes = bytes + #record end
end
if bytes > tonumber(ARGV[2]) then return { 'large' } end

local function entry_of(stream, entry)
  if not entry or not string.find(entry, '^%d+%-%d+$') then return {} end
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  return found and found[2] or {}
end

local names, values, emitted = {}, {}, redis.call('HGETALL', EMITTED)
for i = 1, #emitted, 2 do
  if emitted[i + 1] ~= '1' then
    values[#values + 1] = emitted[i]
    values[#values + 1] = emitted[i + 1]
  end
  if not is_of_journal(emitted[i]) then names[#names + 1] = emitted[i] end
end

local entry, reply = unpack(redis.call('HMGET', CONVERSATION, 'entry', 'reply'))
return { redis.call('HGETALL', CONVERSATION), redis.call('GET', IDS) or '', redis.call('PEXPIRETIME', IDS),
  redis.call('ZRANGE', TAKEN, 0, -1), redis.call('PEXPIRETIME', TAKEN), names,
  redis.call('HGETALL', SENT), redis.call('HGETALL', LOAD_HERE), entry_of(JOBS, entry), entry_of(REPLIES, reply),
  entry and redis.call('SISMEMBER', INTERRUPTED, entry) or 0, waiting[1], waiting[2], waiting[3], waiting[4],
  #found[4], redis.call('GET', KEYS[OWN]) or '', redis.call('ZRANGE', PLACED, 0, -1, 'WITHSCORES'), values,
  redis.call('HGETALL', KEYS[OWN + 1]), redis.call('LRANGE', KEYS[OWN + 2], 0, -1) }
