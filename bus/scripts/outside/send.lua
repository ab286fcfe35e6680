-- Queues a message that no job said (`hashee-agent send`): at once if no other of its kind is under way, else at the end of their line. What takes
-- no turn (an act, the beginning of a stream) is queued at once. Or places a job that one from outside began (`send --reminder`) behind
-- everything that waits in the conversation.
-- KEYS board, line, turn, what was said under keys in this period, in the next and in the three before it, behind, cards
-- ARGV 1 conversation_id  2 reply record, or the job's  3 its id (the record's job)  4 digest of its key, or ''  5 what it says, as it is remembered under the key; '' only asks whether the key was used
--      6 period of that memory  7 length of a period (ms)  8 how long what is remembered stays (s)  9 how long a turn lasts at most (ms)
--      10 entries of the ledger that are kept, '' where it notes nothing  11 most placed jobs that wait in one conversation, '' for a message
--      12 most bytes that wait for a handler  13 id of the card that it shows, or ''  14 what the card is (bus/records/cards.py)
--      15 what takes no turn: act, start (of a stream), or ''  16 the record that an act takes back before it has left the line, or ''
-- -> period (it is another one by Redis' clock: again) | already | key_used (another message was sent under that key) | unknown (there is no
--    such conversation) | many_keys | full (too much waits: again later) | changed (that record is in the line no more) | waits (in the line)
--    | taken_back (it has left the line, and nothing is queued) | queued
-- Invariant: what is said under a key is remembered together with the message, and queued once.
local LINE, TURN, KEY_BYTES = KEYS[OWN], KEYS[OWN + 1], 110 -- what Redis needs for a key that is remembered
local has_key, takes_turn, takes_back = ARGV[4] ~= '', ARGV[15] == '', ARGV[16] ~= ''
if has_key then
  if math.floor(now_ms() / ARGV[7]) ~= tonumber(ARGV[6]) then return 'period' end
  for i = OWN + 2, OWN + 6 do
    local said = redis.call('HGET', KEYS[i], ARGV[4])
    if said then return (ARGV[5] == '' or said == ARGV[5]) and 'already' or 'key_used' end
  end
end
if redis.call('HEXISTS', CONVERSATION, 'kind') == 0 then return 'unknown' end
local out, waits, most = unpack(redis.call('HMGET', LOAD, 'out', 'outside', 'most_out'))
if has_key and most and redis.call('HLEN', KEYS[OWN + 2]) * KEY_BYTES >= most / 8 then return 'many_keys' end
local is_job, is_next = ARGV[11] ~= '', not takes_turn or redis.call('EXISTS', LINE, TURN) == 0
local has_reply = redis.call('HEXISTS', CONVERSATION, 'reply') == 1
if takes_back then
  if redis.call('LREM', LINE, '1', ARGV[16]) == 0 then return 'changed' end
elseif is_job then
  if redis.call('ZCARD', PLACED) >= tonumber(ARGV[11]) or not has_room(payer_of(ARGV[2]), tonumber(ARGV[12])) then return 'full' end
elseif is_next then
  if has_reply and not may_say() then return 'full' end
elseif most and tonumber(waits or 0) + size_of(ARGV[2]) > (most - (out or 0)) / 2 then
  return 'full'
end

count_write()
if has_key and ARGV[5] ~= '' then
  redis.call('HSET', KEYS[OWN + 2], ARGV[4], ARGV[5])
  redis.call('EXPIRE', KEYS[OWN + 2], ARGV[8])
end
if ARGV[13] ~= '' then keep_card(KEYS[OWN + 8], ARGV[13], new_card(ARGV[3], '0', ARGV[14])) end
if ARGV[10] ~= '' then note_first('from_outside', ARGV[3], CONVERSATION_ID, ARGV[10]) end
if takes_back then
  take_off_all('outside', size_of(ARGV[16]))
  note('acted', part_of(ARGV[16], 2), '0 taken_back')
  note('acted', ARGV[3], 'act recalled')
  return 'taken_back'
end
if is_job then
  join_behind(ARGV[2], KEYS[OWN + 7])
  return 'queued'
end
if not is_next then
  redis.call('RPUSH', LINE, ARGV[2])
  redis.call('HINCRBY', LOAD, 'outside', size_of(ARGV[2]))
  return 'waits'
end
if takes_turn then redis.call('SET', TURN, ARGV[3], 'PX', ARGV[9]) end
if is_idle() then begin_work() end
say(ARGV[2], has_reply)
return 'queued'
