-- A message is taken in: session, id, `next` and job in one step (P4; DESIGN rules 1 and 3).
-- KEYS 1 conversation  2 ids  3 taken  4 mailbox  5 session  6 one-time prekeys  7 jobs  8 gen  9 emitted
--      10 out-box  11 replies
-- ARGV 1 signed id  2 its ULID time (ms)  3 'push' or 'poll'  4 seq
--      5 session version read  6 sealed session or '' (unchanged)  7 epoch  8 one-time prekey used or ''
--      9 job record or '' (nothing for a handler)  10 kind and  11 person (of a group its group_id), pinned at first sight
--      12 reply record of our own (an answer to a session.ping) or ''
-- -> duplicate | conflict | gap, next | accepted, 'next'|'jump'|'late'
-- Invariant: a signed id is taken in at most once, and never without its session and its job.
local seq = tonumber(ARGV[4])
if id_is_known(KEYS[2], ARGV[1]) then return { 'duplicate' } end
if ARGV[6] ~= '' and not session_is_current(KEYS[5], ARGV[5]) then return { 'conflict' } end
if ARGV[8] ~= '' and redis.call('HEXISTS', KEYS[6], ARGV[8]) == 0 then return { 'conflict' } end
local pins = redis.call('HMGET', KEYS[1], 'kind', 'person')
if pins[1] and (pins[1] ~= ARGV[10] or pins[2] ~= ARGV[11]) then return { 'conflict' } end
local next = next_seq(KEYS[1])
if ARGV[3] == 'push' and seq > next then return { 'gap', next } end

redis.call('INCR', KEYS[8])
if ARGV[6] ~= '' then store_session(KEYS[5], ARGV[5], ARGV[6], ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HDEL', KEYS[6], ARGV[8]) end
redis.call('HSETNX', KEYS[1], 'kind', ARGV[10])
redis.call('HSETNX', KEYS[1], 'person', ARGV[11])
remember_id(KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]))
take_seq(KEYS[1], KEYS[3], seq)
if ARGV[9] ~= '' then
  redis.call('ZADD', KEYS[4], seq, ARGV[9])
  if redis.call('HEXISTS', KEYS[1], 'entry') == 0 then start_next_job(KEYS[7], KEYS[1], KEYS[4], KEYS[9]) end
end
if ARGV[12] ~= '' then
  redis.call('RPUSH', KEYS[10], ARGV[12])
  start_next_reply(KEYS[11], KEYS[1], KEYS[10])
end
return { 'accepted', seq == next and 'next' or (seq > next and 'jump' or 'late') }
