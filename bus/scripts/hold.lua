-- A message that was judged authentic waits at the relay: it is noted, and counts as taken for `next` and the cursor.
-- KEYS board, notes of its sender, cursor
-- ARGV 1 conversation_id  2 signed id  3 its ULID time (ms)  4 'push' or 'poll'  5 seq
--      6 sender  7 message_id  8 '1': there was no room for it; '0': only since others of its sender wait
--      9 most notes in all  10 received (ms)  11 entries of the ledger that are kept
-- -> duplicate | gap, next | conflict (nothing of its sender waits any more) | hold (too many are noted) | noted, how, gen
-- The note: in which order, seq, conversation, and the cursor, behind which the message stands at the relay.
-- Invariant: while messages of a sender are noted, later ones of the same sender are too: nothing overtakes them.
local NOTES, CURSOR = KEYS[OWN], KEYS[OWN + 1]
local seq, sender = tonumber(ARGV[5]), 's:' .. ARGV[6]
if id_is_known(redis.call('GET', IDS), ARGV[2]) then return { 'duplicate' } end
local next = tonumber(redis.call('HGET', CONVERSATION, 'next') or 1)
if ARGV[4] == 'push' and seq > next then return { 'gap', next } end
if redis.call('HEXISTS', NOTES, ARGV[7]) == 1 then return { 'noted', 'late', tonumber(redis.call('GET', GENERATION) or 0) } end
local total, waits = unpack(redis.call('HMGET', HELD, 'total', sender))
if ARGV[8] == '0' and not waits then return { 'conflict' } end
if tonumber(total or 0) >= tonumber(ARGV[9]) then return { 'hold' } end

local generation = count_write()
redis.call('HSET', NOTES, ARGV[7], table.concat({ generation, seq, CONVERSATION_ID, redis.call('GET', CURSOR) or '' }, '\0'))
redis.call('HINCRBY', HELD, sender, 1)
redis.call('HINCRBY', HELD, 'total', 1)
redis.call('HINCRBY', CONVERSATION, 'held', 1)
take_seq(seq, next)
note_first('held', ARGV[7], CONVERSATION_ID .. ' ' .. ARGV[10] .. ' ' .. ARGV[5], ARGV[11])
return { 'noted', how_taken(seq, next), generation }
