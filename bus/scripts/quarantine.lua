-- A message that cannot be read is kept, and is known from then on.
-- KEYS board, session, one-time prekeys, quarantine, quarantined message
-- ARGV 1 conversation_id  2 signed id, or '' when the signature did not verify (then only the message_id names it)
--      3 its ULID time (ms)  4 'push' or 'poll'  5 seq  6 session version read  7 sealed session or ''  8 epoch
--      9 one-time prekey used or ''  10 kind and  11 person, pinned when the signature verified ('': nothing is pinned)
--      12 message_id  13 reason  14 the frame (ciphertext)  15 sealed plaintext or ''
--      16 reply record of our own (the first message of a new session) or ''  17 sender_id  18 received (ms)
-- -> duplicate | conflict | gap, next | accepted, 'next'|'jump'|'late', gen
-- Invariant: nothing that the relay has shown is dropped; an unauthentic copy never makes the genuine message known.
local SESSION, PREKEYS, QUARANTINE, MESSAGE = unpack(KEYS, OWN, OWN + 3)
local seq = tonumber(ARGV[5])
local known = redis.call('GET', IDS)
if ARGV[2] ~= '' and id_is_known(known, ARGV[2]) then return { 'duplicate' } end
-- An unsigned copy that came first does not stand in the way of the genuine message.
if redis.call('EXISTS', MESSAGE) == 1 and (ARGV[2] == '' or redis.call('HGET', MESSAGE, 'signed') == '1') then
  return { 'duplicate' }
end
if ARGV[2] ~= '' and not is_current(SESSION, ARGV[6]) then return { 'conflict' } end
local field = time_field(known)
local next, latest = unpack(redis.call('HMGET', CONVERSATION, 'next', field))
next = tonumber(next or 1)
if ARGV[4] == 'push' and seq > next then return { 'gap', next } end

local generation = count_write()
if ARGV[7] ~= '' then store_session(SESSION, ARGV[6], ARGV[7], ARGV[8]) end
if ARGV[9] ~= '' then redis.call('HDEL', PREKEYS, ARGV[9]) end
if ARGV[2] ~= '' then
  redis.call('HSET', CONVERSATION, remember_id(known, ARGV[2], ARGV[3], field, latest))
  if ARGV[10] ~= '' then
    redis.call('HSETNX', CONVERSATION, 'kind', ARGV[10])
    redis.call('HSETNX', CONVERSATION, 'person', ARGV[11])
  end
end
take_seq(seq, next)
local now = now_ms()
redis.call('HSET', MESSAGE, 'why', ARGV[13], 'frame', ARGV[14], 'plaintext', ARGV[15], 'at', now,
  'signed', ARGV[2] == '' and 0 or 1, 'from', ARGV[17], 'conversation', CONVERSATION_ID)
redis.call('ZADD', QUARANTINE, now, ARGV[12])
note_first('quarantined', ARGV[12], CONVERSATION_ID .. ' ' .. ARGV[18] .. ' ' .. ARGV[13] .. ' ' .. ARGV[5])
if ARGV[16] ~= '' then
  if is_idle() then begin_work() end
  say(ARGV[16])
end
return { 'accepted', how_taken(seq, next), generation }
