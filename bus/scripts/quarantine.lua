-- A message that cannot be read is kept, and is known from then on.
-- KEYS 1 conversation  2 ids  3 taken  4 session  5 one-time prekeys  6 gen  7 quarantine  8 quarantined message  9 out-box  10 replies
-- ARGV 1 signed id, or '' when the signature did not verify (then only the message_id names it)
--      2 its ULID time (ms)  3 'push' or 'poll'  4 seq  5 session version read  6 sealed session or ''  7 epoch
--      8 one-time prekey used or ''  9 message_id  10 reason  11 the frame (ciphertext)  12 sealed plaintext or ''
--      13 reply record of our own (the first message of a new session) or ''  14 kind and  15 person, pinned when the signature verified ('': nothing is pinned)
-- -> duplicate | conflict | gap, next | accepted, 'next'|'jump'|'late'
-- Invariant: nothing that the relay has shown is dropped; an unauthentic copy never makes the genuine message known.
local seq = tonumber(ARGV[4])
if ARGV[1] ~= '' and id_is_known(KEYS[2], ARGV[1]) then return { 'duplicate' } end
-- An unsigned copy that came first does not stand in the way of the genuine message.
if redis.call('EXISTS', KEYS[8]) == 1 and (ARGV[1] == '' or redis.call('HGET', KEYS[8], 'signed') == '1') then
  return { 'duplicate' }
end
if ARGV[1] ~= '' and not session_is_current(KEYS[4], ARGV[5]) then return { 'conflict' } end
local next = next_seq(KEYS[1])
if ARGV[3] == 'push' and seq > next then return { 'gap', next } end

redis.call('INCR', KEYS[6])
if ARGV[6] ~= '' then store_session(KEYS[4], ARGV[5], ARGV[6], ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HDEL', KEYS[5], ARGV[8]) end
if ARGV[1] ~= '' then
  remember_id(KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]))
  if ARGV[14] ~= '' then
    redis.call('HSETNX', KEYS[1], 'kind', ARGV[14])
    redis.call('HSETNX', KEYS[1], 'person', ARGV[15])
  end
end
take_seq(KEYS[1], KEYS[3], seq)
local now = now_ms()
redis.call('HSET', KEYS[8], 'why', ARGV[10], 'frame', ARGV[11], 'plaintext', ARGV[12], 'at', now,
  'signed', ARGV[1] == '' and 0 or 1)
redis.call('ZADD', KEYS[7], now, ARGV[9])
if ARGV[13] ~= '' then
  redis.call('RPUSH', KEYS[9], ARGV[13])
  start_next_reply(KEYS[10], KEYS[1], KEYS[9])
end
return { 'accepted', seq == next and 'next' or (seq > next and 'jump' or 'late') }
