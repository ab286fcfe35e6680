-- Moves a quarantined message that can be read now into the mailbox, and remembers its id.
-- KEYS board, session, one-time prekeys, quarantine, quarantined message, wanted, what waits for what, kept
-- ARGV 1 conversation_id  2 signed id  3 its ULID time (ms)  4 seq
--      5 session version read  6 sealed session or '' (unchanged)  7 epoch  8 one-time prekey used or ''
--      9 kind and  10 person, pinned at first sight  11 job record or '' (nothing for a handler)  12 message_id
--      13 the name under which it is kept
-- -> gone | duplicate | conflict | accepted, write count
local SESSION, PREKEYS, QUARANTINE, MESSAGE, WANTED, WAITING_FOR, KEPT = unpack(KEYS, OWN, OWN + 6)
local signed = redis.call('HGET', MESSAGE, 'signed')
if not signed then return { 'gone' } end
if ARGV[6] ~= '' and not is_current(SESSION, ARGV[5]) then return { 'conflict' } end
if ARGV[8] ~= '' and redis.call('HEXISTS', PREKEYS, ARGV[8]) == 0 then return { 'conflict' } end
local pins = redis.call('HMGET', CONVERSATION, 'kind', 'person')
if pins[1] and (pins[1] ~= ARGV[9] or pins[2] ~= ARGV[10]) then return { 'conflict' } end
local ids = redis.call('GET', IDS)
local known = signed == '0' and id_is_known(ids, ARGV[2]) -- '1': an older version remembered it when it was quarantined

redis.call('ZREM', QUARANTINE, ARGV[13])
waits_no_longer(WAITING_FOR, MESSAGE, ARGV[13])
release_kept(KEPT, MESSAGE)
redis.call('DEL', MESSAGE)
redis.call('SREM', WANTED, ARGV[13])
local write_count = count_write()
if known then -- the genuine one has come meanwhile; this was a copy
  note('given_up', ARGV[12], 'copy')
  return { 'duplicate', write_count }
end
if ARGV[6] ~= '' then store_session(SESSION, ARGV[5], ARGV[6], ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HDEL', PREKEYS, ARGV[8]) end
redis.call('HSETNX', CONVERSATION, 'kind', ARGV[9])
redis.call('HSETNX', CONVERSATION, 'person', ARGV[10])
if signed == '0' then
  local field = time_field(ids)
  local latest = redis.call('HGET', CONVERSATION, field)
  redis.call('HSET', CONVERSATION, remember_id(ids, ARGV[2], ARGV[3], field, latest))
end
note('requeued', ARGV[12], CONVERSATION_ID)
if ARGV[11] ~= '' then
  if is_idle() then begin_work() end
  deliver(tonumber(ARGV[4]), ARGV[11], unpack(redis.call('HMGET', CONVERSATION, 'entry', 'kept')))
end
return { 'accepted', write_count }
