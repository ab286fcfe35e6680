-- Reads the snapshot of the conversation that is needed before a message is opened; writes nothing.
-- KEYS board, session, owner
-- ARGV 1 conversation_id  2 signed id (8 bytes)  3 sender  4 seq, 0 if the number of missing seqs is not needed
-- -> known (0/1), next, dropped time (ms), session version, sealed record or false, session epoch,
--    pinned kind or false, pinned person or false, version of the sender's row, sealed row or false,
--    whether messages of this sender wait at the relay (0/1), how many seqs before this one are missing: neither taken in, nor
--    confirmed as ours, nor that of the one send that waits for its confirmation
local known = redis.call('GET', IDS)
local row = redis.call('HMGET', CONVERSATION, 'td', 't0', 't1', 't2', 'kind', 'person', 'next')
local session = redis.call('HMGET', KEYS[OWN], 'v', 'b', 'e')
local owner = redis.call('HMGET', KEYS[OWN + 1], 'v', 'b')
local next, seq, missing = tonumber(row[7] or 1), tonumber(ARGV[4]), 0
if row[7] and seq > next then
  missing = seq - next - redis.call('ZCOUNT', TAKEN, next, seq - 1) - redis.call('HEXISTS', SENT, 'cmid')
end
return { id_is_known(known, ARGV[2]) and 1 or 0, next, dropped_ms(known, row),
  tonumber(session[1] or 0) or 0, session[2], tonumber(session[3] or 0) or 0, row[5], row[6], tonumber(owner[1] or 0) or 0, owner[2],
  redis.call('HEXISTS', HELD, 's:' .. ARGV[3]), math.max(0, missing) }
