-- Takes a message in: session, id, `next` and job in one step (P4; DESIGN rules 1, 3, 9 and 11).
-- KEYS board, session, one-time prekeys; waits, where there is ARGV 23
-- ARGV 1 conversation_id  2 signed id  3 its ULID time (ms)  4 'push', 'poll' or 'held' (it was fetched after waiting at the relay)  5 seq
--      6 session version read  7 sealed session or '' (unchanged)  8 epoch  9 one-time prekey used or ''
--      10 kind and  11 person (of a group its group_id), pinned at first sight
--      12 job record or '' (nothing for a handler)  13 reply record of our own (an answer to a session.ping) or ''
--      14 message_id  15 received (ms)  16 opened (ms)  17 most jobs waiting in all
--      18 a refusal (reply record), once the answer was `full`, or ''  19 sender  20 most bytes that wait for a handler
--      21 entries of the ledger that are kept  22 a card whose Stop button it says was pressed, '/stop', or ''  23 an open question that it may answer, once
--      what came back was `full` or `held`, or ''
-- -> duplicate | conflict | gap, next | hold | held (it is to wait at the relay: hold.lua) | full | accepted, 'next'|'jump'|'late', write count
--    | refused, how, write count
-- A sender may take a quarter of the free bytes. A small message for a conversation at rest runs at once and is not counted.
-- A Stop of the job under way reaches whoever runs that, and no handler.
-- Invariant: a signed id is taken in at most once, and never without its session and its job.
local SESSION, PREKEYS = KEYS[OWN], KEYS[OWN + 1]
local seq = tonumber(ARGV[5])
local known = redis.call('GET', IDS)
if id_is_known(known, ARGV[2]) then return { 'duplicate' } end
if ARGV[7] ~= '' and not is_current(SESSION, ARGV[6]) then return { 'conflict' } end
if ARGV[9] ~= '' and redis.call('HEXISTS', PREKEYS, ARGV[9]) == 0 then return { 'conflict' } end
local field = time_field(known)
local kind, person, next, entry, reply, kept, held, latest =
  unpack(redis.call('HMGET', CONVERSATION, 'kind', 'person', 'next', 'entry', 'reply', 'kept', 'held', field))
if kind and (kind ~= ARGV[10] or person ~= ARGV[11]) then return { 'conflict' } end
next = tonumber(next or 1)
if ARGV[4] == 'push' and seq > next then return { 'gap', next } end
local is_full, has_waited = false, ARGV[4] == 'held'
local is_stop = ARGV[22] ~= '' and stops(entry, ARGV[22], ARGV[19], ARGV[10])
local job = is_stop and '' or ARGV[12]
if held and not has_waited and redis.call('HEXISTS', HELD, 's:' .. ARGV[19]) == 1 then return { 'held' } end
local is_let_in = ARGV[23] ~= '' and lets_in(KEYS[OWN + 2], ARGV[23], job, tonumber(ARGV[20]))
if job ~= '' then
  if tonumber(redis.call('GET', WAITING) or 0) + redis.call('XLEN', JOBS) >= tonumber(ARGV[17]) then return { 'hold' } end
end
if job ~= '' and not is_let_in then
  if (entry or #job > UNCOUNTED_BYTES) and not has_room('s:' .. ARGV[19], tonumber(ARGV[20])) then return { 'held' } end
  is_full = entry and room_in_mailbox() <= 0 and policy('full') ~= 'park'
  if is_full then
    -- It is told once: while that is on its way, the next ones wait.
    if has_waited or (reply and redis.call('HEXISTS', CONVERSATION, 'own:!refused') == 1) then return { 'held' } end
    if ARGV[18] == '' then return { 'full' } end
  end
end

local write_count = count_write()
if ARGV[7] ~= '' then store_session(SESSION, ARGV[6], ARGV[7], ARGV[8]) end
if ARGV[9] ~= '' then redis.call('HDEL', PREKEYS, ARGV[9]) end
local row = { remember_id(known, ARGV[2], ARGV[3], field, latest) }
local function put(field, value)
  row[#row + 1] = field
  row[#row + 1] = value
end
if not kind then
  put('kind', ARGV[10])
  put('person', ARGV[11])
end
if seq >= next then put('next', string.format('%d', next_after(seq))) end
if is_stop then flag_stop(entry, ARGV[22]) end
if is_let_in then redis.call('HSET', KEYS[OWN + 2], 'let:' .. ARGV[23], ARGV[14]) end
if not entry and job ~= '' then
  put('entry', add_new_job(job, kept))
  put('seq', ARGV[5])
  if #job > UNCOUNTED_BYTES then put('load', load_of_new(job)) end
end
redis.call('HSET', CONVERSATION, unpack(row))
local event = is_full and 'refused' or (job == '' and 'taken' or 'queued')
note_first(event, ARGV[14], CONVERSATION_ID .. ' ' .. ARGV[15] .. ' ' .. ARGV[16] .. ' ' .. ARGV[5], ARGV[21])
if not (entry or reply) and (job ~= '' or ARGV[13] ~= '') then begin_work() end
if ARGV[13] ~= '' then say_once(ARGV[13], reply) end
if is_full then
  say_once(ARGV[18])
elseif entry and job ~= '' then
  deliver(seq, job, entry, kept)
end
return { is_full and 'refused' or 'accepted', how_taken(seq, next), write_count }
