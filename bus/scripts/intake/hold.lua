-- Notes that a message waits at the relay; for `next` and the cursor it counts as taken in.
-- KEYS board, notes of its sender, cursor
-- ARGV 1 conversation_id  2 signed id; '' for one that nobody can verify yet  3 its ULID time (ms)  4 'push' or 'poll'  5 seq
--      6 sender  7 message_id  8 '1': by itself (no room for it, or the relay does not tell now what it takes to read it); '0': only since others of its sender wait
--      9 most notes in all  10 received (ms)  11 entries of the ledger that are kept  12 signed id in hex
-- -> duplicate | gap, next | conflict (nothing of its sender waits any more) | hold (too many are noted) | noted, how, write count
-- A note holds order, seq, conversation, the cursor behind which the message stands at the relay, and its signed id.
-- A sender may have a quarter of the free notes. Beyond it one open-ended note stands for all that follows in this conversation; it
-- begins with a message that is the latest of its conversation, so that nothing behind it was taken in.
-- Invariant: while messages of a sender are noted, later ones of the same sender are too: nothing overtakes them.
local NOTES, CURSOR = KEYS[OWN], KEYS[OWN + 1]
local seq, sender, most = tonumber(ARGV[5]), 's:' .. ARGV[6], tonumber(ARGV[9])
if ARGV[2] ~= '' and id_is_known(redis.call('GET', IDS), ARGV[2]) then return { 'duplicate' } end
local next = tonumber(redis.call('HGET', CONVERSATION, 'next') or 1)
if ARGV[4] == 'push' and seq > next then return { 'gap', next } end
local total, waits = unpack(redis.call('HMGET', HELD, 'total', sender))
total = tonumber(total or 0)
local open = waits and open_note(NOTES)
local is_behind = open and seq >= open.first
if (is_behind and seq <= open.last) or redis.call('HEXISTS', NOTES, ARGV[7]) == 1 then
  return { 'noted', 'late', tonumber(redis.call('GET', WRITE_COUNT) or 0) }
end
if ARGV[8] == '0' and not waits then return { 'conflict' } end
if not is_behind and total >= most then return { 'hold' } end

local write_count = count_write()
if is_behind then
  open.last, open.id, open.count = seq, ARGV[7], open.count + 1
  put_open_note(NOTES, open)
else
  local cursor = redis.call('GET', CURSOR) or ''
  if seq >= next and tonumber(waits or 0) >= (most - total) / 4 then
    put_open_note(NOTES, { order = write_count, first = seq, cursor = cursor, last = seq, id = ARGV[7], count = 1 })
  else
    redis.call('HSET', NOTES, ARGV[7], table.concat({ write_count, ARGV[5], CONVERSATION_ID, cursor, ARGV[12] }, '\31'))
  end
  redis.call('HINCRBY', HELD, sender, 1)
  redis.call('HINCRBY', HELD, 'total', 1)
  redis.call('HINCRBY', CONVERSATION, 'held', 1)
end
take_seq(seq, next)
note_first('held', ARGV[7], CONVERSATION_ID .. ' ' .. ARGV[10] .. ' ' .. ARGV[5], ARGV[11])
return { 'noted', how_taken(seq, next), write_count }
