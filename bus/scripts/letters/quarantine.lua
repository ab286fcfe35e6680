-- Puts a message that cannot be read into quarantine under a unique name; its id is not remembered, since it was not taken in.
-- KEYS board, session, one-time prekeys, quarantine, quarantined message, what waits for what, kept, cursor
-- ARGV 1 conversation_id  2 signed id, or '' when the signature did not verify (then only the message_id names it)
--      3 its ULID time (ms)  4 'push' or 'poll'  5 seq  6 session version read  7 sealed session or ''  8 epoch
--      9 one-time prekey used or ''  10 kind and  11 person, pinned when the signature verified ('': nothing is pinned)
--      12 message_id  13 reason  14 the frame (ciphertext), or '' where it is of no use any more  15 sealed plaintext or ''
--      16 reply record of our own (the first message of a new session) or ''  17 sender_id  18 received (ms)
--      19 the name under which it is kept: the message_id, or one more word behind it  20 digest of the envelope  21 what it waits for
--      22 what is kept in any case (supervisor/inbound/evidence.py)  23 most bytes of frames and plaintexts  24 those of unsigned ones
--      25 entries of the ledger that are kept
-- -> duplicate | conflict | gap, next | taken (another envelope has this name) | accepted, 'next'|'jump'|'late', write count
-- A sender's frames may take a quarter of the free bytes; unsigned ones have a bound of their own. A message that is not kept whole keeps
-- the cursor behind which it stands at the relay instead.
-- Invariant: nothing that the relay has shown is dropped; an unauthentic copy never makes the genuine message known.
local SESSION, PREKEYS, QUARANTINE, MESSAGE, WAITING_FOR, KEPT, CURSOR = unpack(KEYS, OWN, OWN + 6)
local seq = tonumber(ARGV[5])
local known = redis.call('GET', IDS)
if ARGV[2] ~= '' and id_is_known(known, ARGV[2]) then return { 'duplicate' } end
-- What came first under this name does not stand in the way of another; nor, unverified, in that of itself verified.
local signed, verified, digest = unpack(redis.call('HMGET', MESSAGE, 'signed', 'verified', 'digest'))
if digest and digest ~= ARGV[20] then return { 'taken' } end
if signed and (ARGV[2] == '' or signed == '1' or verified == '1') then return { 'duplicate' } end
if ARGV[2] ~= '' and not is_current(SESSION, ARGV[6]) then return { 'conflict' } end
local next = tonumber(redis.call('HGET', CONVERSATION, 'next') or 1)
if ARGV[4] == 'push' and seq > next then return { 'gap', next } end

local write_count = count_write()
if ARGV[7] ~= '' then store_session(SESSION, ARGV[6], ARGV[7], ARGV[8]) end
if ARGV[9] ~= '' then redis.call('HDEL', PREKEYS, ARGV[9]) end
if ARGV[2] ~= '' and ARGV[10] ~= '' then
  redis.call('HSETNX', CONVERSATION, 'kind', ARGV[10])
  redis.call('HSETNX', CONVERSATION, 'person', ARGV[11])
end
take_seq(seq, next)
local now = now_ms()
if signed then
  waits_no_longer(WAITING_FOR, MESSAGE, ARGV[19])
  release_kept(KEPT, MESSAGE)
end
local payer, bytes = ARGV[2] == '' and 'unsigned' or 's:' .. ARGV[17], #ARGV[14] + #ARGV[15]
local total, held = unpack(redis.call('HMGET', KEPT, 'total', payer))
total, held = tonumber(total or 0), tonumber(held or 0)
local is_kept_whole = total + bytes <= tonumber(ARGV[23])
if ARGV[2] == '' then
  is_kept_whole = is_kept_whole and held + bytes <= tonumber(ARGV[24])
else
  is_kept_whole = is_kept_whole and held < (tonumber(ARGV[23]) - total) / 4
end
if not is_kept_whole then bytes = 0 end
if bytes > 0 then
  redis.call('HINCRBY', KEPT, payer, bytes)
  redis.call('HINCRBY', KEPT, 'total', bytes)
end
-- `signed` 1 is what older versions write: its id stands in the memory. A copy beside another is no frame to them, but a field of its own.
local frame = ARGV[19] == ARGV[12] and 'frame' or 'copy'
redis.call('HSET', MESSAGE, 'frame', '', frame, bytes > 0 and ARGV[14] or '', 'why', ARGV[13],
  'plaintext', bytes > 0 and ARGV[15] or '', 'at', now, 'seq', ARGV[5], 'evidence', ARGV[22], 'kept', payer .. ' ' .. bytes,
  'cursor', (bytes == 0 or ARGV[14] == '') and redis.call('GET', CURSOR) or '',
  'signed', 0, 'verified', ARGV[2] == '' and 0 or 1, 'from', ARGV[17], 'conversation', CONVERSATION_ID,
  'digest', ARGV[20], 'for', ARGV[21])
redis.call('ZADD', QUARANTINE, now, ARGV[19])
redis.call('ZADD', WAITING_FOR, 0, waiting_member(ARGV[21], ARGV[13], ARGV[19]))
note_first('quarantined', ARGV[12], CONVERSATION_ID .. ' ' .. ARGV[18] .. ' ' .. ARGV[13] .. ' ' .. ARGV[5], ARGV[25])
if ARGV[16] ~= '' then
  if is_idle() then begin_work() end
  say_once(ARGV[16])
end
return { 'accepted', how_taken(seq, next), write_count }
