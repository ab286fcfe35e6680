-- Functions for all scripts; each script gets those that it uses in front. Nothing here runs by itself; functions that write are named by what they do.
-- A script checks everything first and then does only writes that cannot fail (DESIGN rule 18). A full Redis refuses a script whose first
-- write may take memory: scripts that free memory begin with a write that cannot (rule 16).
--
-- A script about a conversation has names for the keys of the board (bus/records/keys.py `board`, in the same order); bus/transport/lua.py gives it as
-- KEYS those that it uses, and puts the lines that name them here. Its own keys begin at KEYS[OWN]; the conversation's id is ARGV[1].
-- BOARD CONVERSATION IDS TAKEN MAILBOX PARKED PLACED TOGETHER EMITTED OUT_BOX SENT LOAD_HERE SAID_HERE JOBS REPLIES DUE DEAD OUTBOX ACKS BUSY WAITING
-- BOARD INTERRUPTED INTERRUPTS STREAMS POLICY EPOCH WRITE_COUNT LEDGER LOAD HELD
-- What happens seldom in the operations that every message has, by far the most of all. Such a function costs a script nothing before it is called, and then somewhat more.
-- RARE stops flag_stop deliver lets_in say_once take_off take_off_running put_on count_waiting load_of_new has_room room_in_mailbox enqueue
-- RARE start_waiting_job start_first_placed recall_places unpark policy may_say interrupt leave_turn start_reply_or_rest begin_stream
local CONVERSATION_ID = ARGV[1]

local JOBS_GROUP = 'workers'
local REPLIES_GROUP = 'supervisors'
local ID_BYTES = 8
local IDS_TRIM_AT = 1536 * ID_BYTES
local IDS_KEPT = 1024 * ID_BYTES
local IDS_BLOCK = 512 * ID_BYTES
local IDLE_SECONDS = 90 * 86400 -- the id memory of a conversation that says nothing for so long is dropped
local EXPIRY_SECONDS = '7862400' -- a day more: moved again when that day is over
local MOST_WAITING = 100        -- in one mailbox, unless the handler's code says otherwise
local UNCOUNTED_BYTES = 4096    -- a running job that is no larger counts for nothing: nearly all are so small, and it costs nothing
local OVERHEAD_BYTES = 200      -- what Redis needs beside a record that waits
local AFTER_ALL = '9007199254740992' -- 2^53, the conversation's `seq` while a placed job runs: no message is later, so none interrupts it
local PLACED_STEP = 2 ^ -20     -- placed jobs stand between two seqs: a million of them behind one message before order among them is lost

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- -> who holds a lease, or false. A lease that has longer to run than its length was given before Redis' clock was put back, and would outlive its
-- holder: it is cut to its length from now. Shortening an expiry takes no memory (rule 16), so it may come before the checks.
local function holder_of(lease, most_ms)
  local holder = redis.call('GET', lease)
  if holder and redis.call('PTTL', lease) > tonumber(most_ms) then redis.call('PEXPIRE', lease, most_ms) end
  return holder
end

local function count_write()
  return redis.call('INCR', WRITE_COUNT)
end

-- Adds an event of a message to the ledger, without content. All entries have the same fields, which Redis then stores once.
-- A ledger of another type (a damaged disk) loses its lines and stops no script in its midst: what a script wrote before stays written.
local function note_in(ledger, event, job, detail)
  redis.pcall('XADD', ledger, '*', 'e', event, 'j', job, 'x', detail or '')
end

local function note(event, job, detail)
  note_in(LEDGER, event, job, detail)
end

-- Adds the first event of a message, and trims the ledger to `kept` entries; the few further events of a message need not trim it.
local function note_first(event, job, detail, kept)
  redis.pcall('XADD', LEDGER, 'MAXLEN', '~', kept, '*', 'e', event, 'j', job, 'x', detail)
end

-- -> whether this entry, the fencing token, is pending at this consumer (DESIGN rule 6)
local function lease_is_mine(stream, group, entry, consumer)
  return #redis.call('XPENDING', stream, group, entry, entry, '1', consumer) == 1
end

local function settle(stream, group, entry)
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
end

local function fields_of(stream, entry)
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  if not found then return nil end
  local fields = {}
  for i = 1, #found[2], 2 do fields[found[2][i]] = found[2][i + 1] end
  return fields
end

-- Ids and seqs

-- `known`: the memory of ids as it was read.
local function id_is_known(known, id)
  if not known then return false end
  local from = 1
  while true do
    local at = string.find(known, id, from, true)
    if not at then return false end
    if at % ID_BYTES == 1 then return true end
    from = at + 1
  end
end

-- The conversation keeps, for each block of 512 remembered ids, the latest ULID time in it (t0, t1, t2), so that `td`, the latest
-- time dropped from memory, is exact when the first block goes, and when all of it has expired.
-- `known`: the memory of ids as it was read. `times`: `td` and these, if they are known.
local function dropped_ms(known, times)
  times = times or redis.call('HMGET', CONVERSATION, 'td', 't0', 't1', 't2')
  local dropped = tonumber(times[1] or 0)
  if not known then
    for i = 2, 4 do dropped = math.max(dropped, tonumber(times[i] or 0)) end
  end
  return dropped
end

local function time_field(known)
  local length = #(known or '')
  return length < IDS_BLOCK and 't0' or (length < 2 * IDS_BLOCK and 't1' or 't2')
end

-- Adds an id to the memory after those that are `known`; `field`: their time_field, `latest`: the conversation's value there.
-- -> a field of the conversation, and the time to be set there.
local function remember_id(known, id, ulid_ms, field, latest)
  local before, now = known and tonumber(latest or 0) or 0, tonumber(ulid_ms)
  if not known then
    local dropped = math.min(dropped_ms(known), now_ms())
    if dropped > 0 then redis.call('HSET', CONVERSATION, 'td', dropped) end
    redis.call('HDEL', CONVERSATION, 't0', 't1', 't2')
  end
  local length = redis.call('APPEND', IDS, id)
  if redis.call('TTL', IDS) < IDLE_SECONDS then redis.call('EXPIRE', IDS, EXPIRY_SECONDS) end
  if before > now then ulid_ms = latest end
  if length < IDS_TRIM_AT then return field, ulid_ms end
  redis.call('SET', IDS, redis.call('GETRANGE', IDS, length - IDS_KEPT, -1), 'EX', EXPIRY_SECONDS)
  local times = redis.call('HMGET', CONVERSATION, 'td', 't0', 't1')
  local dropped = math.min(math.max(tonumber(times[1] or 0), tonumber(times[2] or 0)), now_ms())
  redis.call('HSET', CONVERSATION, 'td', dropped, 't0', times[3] or 0)
  redis.call('HDEL', CONVERSATION, 't2')
  return 't1', ulid_ms
end

-- Takes a seq in (of an inbound message, or of our own). -> the next one expected, behind our own that follow it
local function next_after(seq)
  local next = seq + 1
  if redis.call('EXISTS', TAKEN) == 0 then return next end
  while redis.call('ZSCORE', TAKEN, next) do next = next + 1 end
  redis.call('ZREMRANGEBYSCORE', TAKEN, '-inf', next - 1)
  return next
end

local function take_seq(seq, next)
  if seq >= next then redis.call('HSET', CONVERSATION, 'next', string.format('%d', next_after(seq))) end
end

local function how_taken(seq, next)
  return seq == next and 'next' or (seq > next and 'jump' or 'late')
end

-- Sessions

-- Used for an owner's row too.
local function is_current(hash, version)
  local found = redis.call('HGET', hash, 'v') or '0'
  return found == version or (version == '0' and not string.match(found, '^%d+$')) -- what is no number was damaged, and is read as 0
end

local function store_session(session, version, sealed, epoch)
  redis.call('HSET', session, 'v', string.format('%d', version + 1), 'b', sealed, 'e', epoch)
end

-- What each message in quarantine waits for: members of one sorted set, found by their beginning

local function waiting_member(thing, why, name)
  return thing .. '\0' .. why .. '\0' .. name
end

local function waits_no_longer(waiting_for, message, name)
  local what = redis.call('HMGET', message, 'for', 'why')
  if what[1] then redis.call('ZREM', waiting_for, waiting_member(what[1], what[2], name)) end
end

-- Takes a message's bytes off the counts of the quarantine (in all, and of its signer): `message` leaves, or is written anew.
local function release_kept(kept, message)
  local payer, bytes = string.match(redis.call('HGET', message, 'kept') or '', '^(.*) (%d+)$')
  if not payer then return end -- of a former version
  local less = 0 - bytes -- for 0 bytes `-bytes` would be "-0", which Redis 7.0 takes for no number
  if redis.call('HINCRBY', kept, payer, less) <= 0 then redis.call('HDEL', kept, payer) end
  if redis.call('HINCRBY', kept, 'total', less) <= 0 then redis.call('HDEL', kept, 'total') end
end

-- Bytes that wait are counted in LOAD (`total`, each sender's, and replies in `out`) and, for this conversation, in LOAD_HERE. A record
-- names its sender itself, so that the same is taken off when it goes as was counted when it came.

local function take_off_all(payer, bytes)
  if redis.call('HINCRBY', LOAD, payer, -bytes) <= 0 then redis.call('HDEL', LOAD, payer) end
end

local function put_on(payer, bytes)
  redis.call('HINCRBY', LOAD_HERE, payer, bytes)
  redis.call('HINCRBY', LOAD, payer, bytes)
  if payer ~= 'out' then redis.call('HINCRBY', LOAD, 'total', bytes) end
end

-- Never takes off more than this conversation has counted: a former version did not count its records.
local function take_off(payer, bytes)
  local here = tonumber(redis.call('HGET', LOAD_HERE, payer) or 0)
  if bytes > here then bytes = here end
  if bytes == 0 then return end
  if redis.call('HINCRBY', LOAD_HERE, payer, -bytes) <= 0 then redis.call('HDEL', LOAD_HERE, payer) end
  take_off_all(payer, bytes)
  if payer ~= 'out' then take_off_all('total', bytes) end
end

-- At rest nothing waits: clears whatever a former version has left counted.
local function take_off_the_rest()
  local left = redis.call('HGETALL', LOAD_HERE)
  for i = 1, #left, 2 do take_off(left[i], tonumber(left[i + 1])) end
end

local function size_of(record)
  return #record + OVERHEAD_BYTES
end

-- -> one text part of a record (a msgpack list of fewer than 16 parts), '' if there is none. Redis' own cmsgpack cannot read bytes.
local function part_of(record, number)
  local head = string.byte(record, 1) or 0
  if head < 0x90 or head > 0x9f or head - 0x90 < number then return '' end
  local at = 2
  for i = 1, number do
    local kind, a, b, c, d = string.byte(record, at, at + 4)
    if not kind then return '' end
    local from, to = at + 1, at
    if kind >= 0xa0 and kind <= 0xbf then
      to = at + kind - 0xa0
    elseif kind == 0xc4 or kind == 0xd9 then
      from, to = at + 2, at + 1 + a
    elseif kind == 0xc5 or kind == 0xda then
      from, to = at + 3, at + 2 + a * 256 + b
    elseif kind == 0xc6 or kind == 0xdb then
      from, to = at + 5, at + 4 + ((a * 256 + b) * 256 + c) * 256 + d
    elseif kind >= 0xcc and kind <= 0xd3 then
      to = at + 2 ^ (kind % 4)
    end
    if i == number then return string.sub(record, from, to) end
    at = to + 1
  end
end

-- -> the sender in a job's record, its eighth part
local function payer_of(record)
  return 's:' .. part_of(record, 8)
end

local function count_waiting(record)
  put_on(payer_of(record), size_of(record))
end

-- The running job and those handled together with it are counted by the conversation's field `load`: bytes and sender, a line for each.
local function as_load(sender, bytes)
  return bytes .. ' ' .. sender .. '\n'
end

-- A job that waited runs now.
local function count_running(record)
  local sender = payer_of(record)
  if #record > UNCOUNTED_BYTES then
    redis.call('HSET', CONVERSATION, 'load', as_load(sender, size_of(record)))
  else
    take_off(sender, size_of(record))
  end
end

-- A job runs at once. -> the conversation's new `load`, or nil if the job is not counted
local function load_of_new(record)
  if #record <= UNCOUNTED_BYTES then return nil end
  count_waiting(record)
  return as_load(payer_of(record), size_of(record))
end

-- `load`: the conversation's field.
local function take_off_running(load)
  for bytes, sender in string.gmatch(load, '(%d+) ([^\n]*)') do take_off(sender, tonumber(bytes)) end
end

-- Dynamic thresholds (Choudhury and Hahne 1998). -> whether less than a quarter of what is free is taken, so that more may be added
local function has_room(sender, most)
  local all, mine = unpack(redis.call('HMGET', LOAD, 'total', sender))
  return tonumber(mine or 0) < (most - (all or 0)) / 4
end

-- -> whether this conversation may queue more replies behind the one under way
local function may_say()
  local out, most = unpack(redis.call('HMGET', LOAD, 'out', 'most_out'))
  return not most or tonumber(redis.call('HGET', LOAD_HERE, 'out') or 0) < (most - (out or 0)) / 4
end

-- The open-ended note of a sender with more than a share of the notes (bus/steps/held.py): it stands for `count` messages of this conversation from
-- seq `first` to seq `last`, whose message_id is `id`. All of them stand at the relay behind `cursor`.
local function open_note(notes)
  local note = redis.call('HGET', notes, '\31' .. CONVERSATION_ID)
  if not note then return nil end
  local order, first, cursor, last, id, count = string.match(note, '^(%d+)\31(%d+)\31[^\31]*\31([^\31]*)\31(%d+)\31([^\31]*)\31(%-?%d+)$')
  return { order = order, first = tonumber(first), cursor = cursor, last = tonumber(last), id = id, count = tonumber(count) }
end

local function put_open_note(notes, note)
  redis.call('HSET', notes, '\31' .. CONVERSATION_ID, table.concat({ note.order, string.format('%d', note.first), CONVERSATION_ID,
    note.cursor, string.format('%d', note.last), note.id, note.count }, '\31'))
end

-- Counts one note less of a sender.
local function count_off_note(sender)
  for _, field in ipairs({ 's:' .. sender, 'total' }) do
    if redis.call('HINCRBY', HELD, field, -1) <= 0 then redis.call('HDEL', HELD, field) end
  end
  if redis.call('HINCRBY', CONVERSATION, 'held', -1) <= 0 then redis.call('HDEL', CONVERSATION, 'held') end
end

-- A conversation at work and at rest

local function is_idle()
  local under_way = redis.call('HMGET', CONVERSATION, 'entry', 'reply')
  return not (under_way[1] or under_way[2])
end

local function begin_work()
  redis.call('ZADD', BUSY, 'NX', string.format('%d', now_ms()), CONVERSATION_ID)
end

local function rest()
  redis.call('ZREM', BUSY, CONVERSATION_ID)
  take_off_the_rest()
end

local function policy(name)
  return redis.call('HGET', POLICY, name)
end

local function room_in_mailbox()
  return tonumber(policy('most') or MOST_WAITING) - redis.call('ZCARD', MAILBOX)
end

-- -> whether the job under way is to stop, whatever it does: its person has said /stop (`flag_stop`)
local function is_told_to_stop()
  return redis.call('HGET', CONVERSATION, 'stop') == '/stop'
end

-- Starts a job: adds the conversation's one entry to `jobs`.
-- `past` (field k): it may be a dead letter that was brought back; set only for its first delivery. One that is to stop has one: whoever takes it asks.
local function start_job(record, attempt, deliveries, strikes, past)
  if is_told_to_stop() then past = '1' end
  local entry = redis.call('XADD', JOBS, '*', 'r', record, 'a', attempt, 'd', deliveries, 's', strikes,
    unpack(past and { 'k', past } or {}))
  redis.call('HSET', CONVERSATION, 'entry', entry)
  return entry
end

-- -> a job's record (bus/records/records.py) as it is while questions are open: a worker of a version that knows none leaves it to others, since
-- it would take an answer for words to a handler. A record begins with its schema: 1, which is a byte of its own.
local function as_maybe_an_answer(record)
  if redis.call('HEXISTS', CONVERSATION, 'asks') == 0 or string.byte(record, 2) ~= 1 then return record end
  return string.sub(record, 1, 1) .. '\2' .. string.sub(record, 3)
end

-- How many deliveries of the running job count: not those in which it has waited for something outside (`waited`).
local function deliveries_that_count(job)
  return tonumber(job.d) - tonumber(redis.call('HGET', CONVERSATION, 'waited') or 0)
end

-- Starts a job's first delivery. `kept`: how many dead letters that were brought back the conversation has; this may be one (field k).
local function add_new_job(record, kept)
  if kept then
    return redis.call('XADD', JOBS, '*', 'r', as_maybe_an_answer(record), 'a', '1', 'd', '1', 's', '0', 'k', '1')
  end
  return redis.call('XADD', JOBS, '*', 'r', record, 'a', '1', 'd', '1', 's', '0')
end

local function start_new_job(seq, record, kept)
  local entry = add_new_job(record, kept)
  redis.call('HSET', CONVERSATION, 'entry', entry, 'seq', seq)
  return entry
end

-- How a message stands apart (bus/records/records.py): a command and an answer to a card are handled by themselves, and an answer neither interrupts
-- nor is interrupted. '' for all else, and for what a former version wrote.
local function stands_apart(record)
  return part_of(record, 11)
end

local function interrupt(entry)
  redis.call('SADD', INTERRUPTED, entry)
  redis.call('PUBLISH', INTERRUPTS, entry)
end

-- Moves parked jobs into the mailbox, in order, as far as it has room.
local function unpark()
  local room = room_in_mailbox()
  if room <= 0 or redis.call('EXISTS', PARKED) == 0 then return end
  local moved = redis.call('ZPOPMIN', PARKED, room)
  for i = 1, #moved, 2 do redis.call('ZADD', MAILBOX, moved[i + 1], moved[i]) end
  redis.call('INCRBY', WAITING, #moved / 2)
end

-- -> whether a message waits in the mailbox that interrupts: nearly always the first one does
local function has_who_interrupts()
  local at = 0
  while true do
    local record = redis.call('ZRANGE', MAILBOX, at, at)[1]
    if not record then return false end
    if stands_apart(record) ~= 'answer' then return true end
    at = at + 1
  end
end

-- Starts the first job of the mailbox, or of what is parked. -> whether there was one
local function start_waiting_job()
  local head = redis.call('ZPOPMIN', MAILBOX)
  if #head == 0 then
    unpark()
    head = redis.call('ZPOPMIN', MAILBOX)
  end
  if #head == 0 then return false end
  local record, seq = head[1], head[2]
  redis.call('DECR', WAITING)
  unpark()
  count_running(record)
  local started = start_new_job(seq, record, redis.call('HGET', CONVERSATION, 'kept'))
  if policy('busy') == 'interrupt' and stands_apart(record) ~= 'answer' and has_who_interrupts() then interrupt(started) end
  return true
end

-- Starts the first placed job, if no message waits before it. -> whether it did
local function start_first_placed()
  local first = redis.call('ZRANGE', PLACED, 0, 0, 'WITHSCORES')
  if not first[1] then
    redis.call('HDEL', CONVERSATION, 'placed')
    return false
  end
  for _, box in ipairs({ MAILBOX, PARKED }) do
    local message = redis.call('ZRANGE', box, 0, 0, 'WITHSCORES')
    if message[2] and tonumber(message[2]) < tonumber(first[2]) then return false end
  end
  redis.call('ZREM', PLACED, first[1])
  if redis.call('EXISTS', PLACED) == 0 then redis.call('HDEL', CONVERSATION, 'placed') end
  count_running(first[1])
  start_new_job(AFTER_ALL, first[1], redis.call('HGET', CONVERSATION, 'kept'))
  return true
end

-- Starts the next job of the mailbox, or lets the conversation rest, after the job of `entry` has ended. If they are known: `has_reply`, whether a
-- reply is under way; `load` and `has_placed`, the conversation's fields, false for none.
local function start_next_job(entry, has_reply, load, has_placed)
  redis.call('DEL', EMITTED, TOGETHER)
  redis.call('SREM', INTERRUPTED, entry)
  if load == nil then load = redis.call('HGET', CONVERSATION, 'load') end
  if has_placed == nil then has_placed = redis.call('HGET', CONVERSATION, 'placed') end
  if load then take_off_running(load) end
  redis.call('HDEL', CONVERSATION, 'entry', 'seq', 'began', 'frozen', 'load', 'stop', 'waited')
  if has_placed and start_first_placed() then return end
  if redis.call('EXISTS', MAILBOX, PARKED) > 0 and start_waiting_job() then return end
  if has_reply == nil then has_reply = redis.call('HEXISTS', CONVERSATION, 'reply') == 1 end
  if not has_reply then rest() end
end

-- Words of any bytes as one text, and that text's words.

local function joined(words)
  local parts = {}
  for i, word in ipairs(words) do parts[i] = #word .. ':' .. word end
  return table.concat(parts)
end

local function words_of(text)
  local words, at = {}, 1
  while at <= #text do
    local _, colon, size = string.find(text, '^(%d+):', at)
    words[#words + 1] = string.sub(text, colon + 1, colon + size)
    at = colon + size + 1
  end
  return words
end

-- EMITTED has the places that the running thread has emitted, each with '1' or a value of its own, and the thread's journal: an entry for
-- each name, which begins with '='. So a journal lives and goes with the places, and no other thread ever gets it.

local function is_of_journal(field)
  return string.sub(field, 1, 1) == '='
end

-- Counts bytes of the running thread's journal; they are taken off with the job (`load`).
local function count_journal(bytes)
  put_on('journal', bytes)
  local load = redis.call('HGET', CONVERSATION, 'load') or ''
  local had = tonumber(string.match(load, '(%d+) journal\n') or 0)
  redis.call('HSET', CONVERSATION, 'load', string.gsub(load, '%d+ journal\n', '') .. as_load('journal', had + bytes))
end

-- Puts a job into the mailbox, in the order of seqs. Under `park` the latest of all that wait is parked if there is no room.
local function enqueue(seq, record)
  count_waiting(record)
  local parked = redis.call('ZRANGE', PARKED, 0, 0, 'WITHSCORES')
  if parked[2] and tonumber(parked[2]) < seq then
    redis.call('ZADD', PARKED, seq, record)
    return
  end
  redis.call('ZADD', MAILBOX, seq, record)
  redis.call('INCR', WAITING)
  if policy('full') ~= 'park' or room_in_mailbox() >= 0 then return end
  local last = redis.call('ZPOPMAX', MAILBOX)
  redis.call('ZADD', PARKED, last[2], last[1])
  redis.call('DECR', WAITING)
end

-- Puts a job that no message began behind everything that waits in the conversation; where nothing is under way it runs at once.
-- It neither interrupts nor is parked, and counts against no mailbox. `behind`: key of the conversations in which such jobs wait.
local function join_behind(record, behind)
  local entry, next, kept = unpack(redis.call('HMGET', CONVERSATION, 'entry', 'next', 'kept'))
  if is_idle() then begin_work() end
  if not entry then
    local load = load_of_new(record)
    if load then redis.call('HSET', CONVERSATION, 'load', load) end
    return start_new_job(AFTER_ALL, record, kept)
  end
  count_waiting(record)
  local before, last = tonumber(next or 1) - 1, redis.call('ZRANGE', PLACED, -1, -1, 'WITHSCORES')
  local score = math.min(math.max(before, tonumber(last[2] or 0)) + PLACED_STEP, before + 1 - PLACED_STEP)
  redis.call('ZADD', PLACED, score, record)
  redis.call('HSET', CONVERSATION, 'placed', 1)
  redis.call('ZADD', behind, 'NX', now_ms(), CONVERSATION_ID)
end

-- Timers of the conversation by their ids, and in `alarms` when each of all conversations is due. A record says when it is due too.

local function put_timer(timers, alarms, id, due_ms, record)
  redis.call('HSET', timers, id, record)
  redis.call('ZADD', alarms, due_ms, CONVERSATION_ID .. '\0' .. id)
end

local function drop_timer(timers, alarms, id)
  redis.call('HDEL', timers, id)
  redis.call('ZREM', alarms, CONVERSATION_ID .. '\0' .. id)
end

-- `places`: what a job had emitted. `what`: job id and place that a committed send answers; its record does not say.
-- `values`: the journal, and places with a value of their own (`joined`).
local function bury(record, reason, attempt, deliveries, places, what, values)
  redis.call('XADD', DEAD, '*', 'r', record, 'why', reason, 'a', attempt, 'd', deliveries, 'at', now_ms(),
    'p', places or '', 'w', what or '', unpack((values or '') ~= '' and { 'j', values } or {}))
end

-- Makes a dead letter without content for a message that the relay has no more, so that the loss stays visible.
local function bury_gone(message_id)
  bury('', 'gone_at_relay', 0, 0, '', message_id .. ' ')
  note('dead', message_id, 'gone_at_relay')
end

-- One less of what is kept in the conversation for later jobs (`kept`).
local function keep_less()
  if redis.call('HINCRBY', CONVERSATION, 'kept', -1) <= 0 then redis.call('HDEL', CONVERSATION, 'kept') end
end

local function recall_values(values)
  local words, bytes = words_of(values), 0
  for i = 1, #words, 2 do
    redis.call('HSET', EMITTED, words[i], words[i + 1])
    if is_of_journal(words[i]) then bytes = bytes + size_of(words[i + 1]) end
  end
  if bytes > 0 then count_journal(bytes) end
end

-- Restores the emitted places and the journal of a dead letter that was brought back: its job goes on from there (P2).
local function recall_places(job)
  local places, values = unpack(redis.call('HMGET', CONVERSATION, 'p:' .. job, 'j:' .. job))
  redis.call('HDEL', CONVERSATION, 'p:' .. job, 'j:' .. job)
  if places then keep_less() end
  for place in string.gmatch(places or '', '%S+') do redis.call('HSET', EMITTED, place, 1) end
  if values then recall_values(values) end
end

-- -> the name of the newest exchange of the conversation's history, '' where there is none; nil where a later version wrote it, and may name it otherwise
local function newest_exchange()
  local record = redis.call('LINDEX', SAID_HERE, '-1')
  if not record then return '' end
  if string.byte(record, 2) == 1 then return part_of(record, 4) end
end

-- Makes the running job, with its places and its journal, and those handled together with it, dead letters. It knows up to where the history went
-- then, as the value of a place (`!read`): nobody adds to it while the job is under way, so that is what the job has seen of it, or would have.
-- Those that were handled together with it do not: brought back they may be handled together again, and nobody would take it from them.
local function bury_job(fields, reason)
  local read = redis.call('HGET', EMITTED, '!read') or newest_exchange()
  local known = read and { '!read', read } or {}
  local emitted, places, values = redis.call('HGETALL', EMITTED), {}, { unpack(known) }
  for i = 1, #emitted, 2 do
    local is_ours = emitted[i] == '!read'
    if not is_of_journal(emitted[i]) and not is_ours then places[#places + 1] = emitted[i] end
    if emitted[i + 1] ~= '1' and not is_ours then
      values[#values + 1] = emitted[i]
      values[#values + 1] = emitted[i + 1]
    end
  end
  bury(fields.r, reason, fields.a, fields.d, table.concat(places, ' '), '', joined(values))
  for _, record in ipairs(redis.call('LRANGE', TOGETHER, 0, -1)) do bury(record, reason, 1, 1) end
end

-- -> the record of the job under way. `entry`: the conversation's field
local function record_under_way(entry)
  if entry == 'due' then return redis.call('HGET', CONVERSATION, 'retry') or '' end
  return (fields_of(JOBS, entry) or {}).r or ''
end

-- -> whether a Stop ends something of the job under way, which is for this sender, or which no message began in a conversation of two (`kind`).
-- `what`: a card of it, whose button ends a block; or '/stop', which ends the whole job, where the handler's code says so.
local function stops(entry, what, sender, kind)
  if not entry then return false end
  local of = part_of(record_under_way(entry), 8)
  if of ~= sender and (of ~= '' or kind == 'group') then return false end
  if what == '/stop' then return policy('stop') == '1' end
  if is_told_to_stop() then return false end
  for _, one in ipairs(redis.call('HVALS', EMITTED)) do
    if one == what then return true end
  end
  return false
end

-- Tells whoever runs the job under way what is to stop; that goes with the job. A job that waits for its next run has it at once, and one that nobody
-- has taken is put there anew, since a first delivery is begun without a question.
local function flag_stop(entry, what)
  redis.call('HSET', CONVERSATION, 'stop', what)
  if what ~= '/stop' then return redis.call('PUBLISH', INTERRUPTS, entry .. ' stop') end
  if entry == 'due' then return redis.call('ZADD', DUE, 'XX', now_ms(), CONVERSATION_ID) end
  local job = #redis.call('XPENDING', JOBS, JOBS_GROUP, entry, entry, '1') == 0 and fields_of(JOBS, entry)
  if not job then return interrupt(entry) end
  settle(JOBS, JOBS_GROUP, entry)
  start_job(job.r, job.a, job.d, job.s or 0, job.k)
end

-- Gives a message to the handler: at once, or behind the job of `entry`.
local function deliver(seq, record, entry, kept)
  if not entry then
    local load = load_of_new(record)
    if load then redis.call('HSET', CONVERSATION, 'load', load) end
    return start_new_job(seq, record, kept)
  end
  enqueue(seq, record)
  if policy('busy') ~= 'interrupt' or seq < tonumber(redis.call('HGET', CONVERSATION, 'seq') or 0) then return end
  if stands_apart(record) == 'answer' or stands_apart(record_under_way(entry)) == 'answer' then return end
  if entry ~= 'due' then return interrupt(entry) end
  redis.call('ZREM', DUE, CONVERSATION_ID) -- what waits for its second run is superseded without it
  note('superseded', redis.call('HGET', CONVERSATION, 'retry_j'))
  redis.call('HDEL', CONVERSATION, 'retry', 'retry_a', 'retry_d', 'retry_s', 'retry_j')
  start_next_job(entry)
end

-- Puts the head of the out-box into `replies`, as none is under way (field 'reply': its entry, or 'sent'). -> whether there was one
-- `head`: given if it has not waited, and so is not counted.
local function start_next_reply(head)
  if not head then
    head = redis.call('LINDEX', OUT_BOX, '0')
    if not head then return false end
    take_off('out', size_of(head))
  end
  redis.call('HSET', CONVERSATION, 'reply', redis.call('XADD', REPLIES, '*', 'r', head))
  return true
end

local function start_reply_or_rest(entry)
  if not start_next_reply() and not entry then rest() end
end

-- Goes on after a reply: to the next one, or, if no job (`entry`) is under way either, to rest.
local function end_reply(entry)
  redis.call('HDEL', CONVERSATION, 'reply')
  if redis.call('EXISTS', OUT_BOX, LOAD_HERE) > 0 then return start_reply_or_rest(entry) end
  if not entry then redis.call('ZREM', BUSY, CONVERSATION_ID) end -- nothing waits and nothing is counted: so it is after nearly every reply
end

-- The reply under way was the beginning of a stream, which needs no acknowledgement. `holder`: the supervisor that has begun it.
local function begin_stream(stream, holder)
  redis.call('HSET', STREAMS, CONVERSATION_ID, stream .. ' ' .. holder)
  end_reply(redis.call('HGET', CONVERSATION, 'entry'))
end

-- Puts a reply into the out-box of a conversation at work. `has_reply`: whether one is under way, if that is known; one is afterwards.
local function say(record, has_reply)
  local length = redis.call('RPUSH', OUT_BOX, record)
  if has_reply == nil then has_reply = redis.call('HEXISTS', CONVERSATION, 'reply') == 1 end
  if has_reply or length > 1 then put_on('out', size_of(record)) end
  if not has_reply then start_next_reply(length == 1 and record or nil) end
end

-- Queues a reply of our own, unless the same waits already: three thousand pings get one pong. -> whether it was queued
local function say_once(record, has_reply)
  local field = 'own:' .. part_of(record, 4) -- its place
  if has_reply == nil then has_reply = redis.call('HEXISTS', CONVERSATION, 'reply') == 1 end
  if has_reply and redis.call('HEXISTS', CONVERSATION, field) == 1 then return false end
  redis.call('HSET', CONVERSATION, field, 1)
  say(record, has_reply)
  return true
end

-- Goes on to the next reply, after one was sent or given up.
local function is_said(place)
  if string.sub(place, 1, 1) == '!' then redis.call('HDEL', CONVERSATION, 'own:' .. place) end
end

-- -> what is kept of a card that is sent now (bus/records/cards.py)
local function new_card(thread, place, kind)
  return table.concat({ '0', thread, place, kind }, '\31')
end

-- Keeps what is known of a card; of a conversation's cards the newest are kept.
local function keep_card(cards, id, card)
  local kept, trim_at = 1000, 1250 -- 100 KB of Redis at most; sorted seldom, and then many go at once
  redis.call('HSET', cards, id, card)
  redis.call('EXPIRE', cards, IDLE_SECONDS)
  if redis.call('HLEN', cards) < trim_at then return end
  local ids = redis.call('HKEYS', cards)
  table.sort(ids)
  redis.call('HDEL', cards, unpack(ids, 1, #ids - kept))
end

-- Lets the next message of the line have its turn (bus/scripts/outside/let_out.lua), if this one has it. `turn`: nil for what did not come from there.
local function leave_turn(turn, id)
  if turn and redis.call('GET', turn) == id then redis.call('DEL', turn) end
end

-- Makes the job of `entry` a dead letter, queues the `apology` to its sender (a reply record, or ''), and starts the next job. The apology
-- has a place like a reply, which the dead letter keeps: a message that is brought back and given up again tells its sender nothing more.
local function give_up(entry, fields, job, reason, detail, apology)
  recall_places(job) -- it may never have begun
  local is_owed = apology ~= '' and redis.call('HSETNX', EMITTED, '!apology', 1) == 1
  bury_job(fields, reason)
  note('dead', job, detail)
  if is_owed then say(apology) end
  start_next_job(entry)
end

-- Stores an outbox record that waits for its acknowledgement. `what`: job id and place that it answers. `told`: the note for its confirmation.
local function put_sent(client_message_id, record, holder, what, due_ms, told)
  redis.call('HSET', CONVERSATION, 'reply', 'sent')
  redis.call('HSET', SENT, 'cmid', client_message_id, 'r', record, 'holder', holder, 'what', what, 'note', told)
  redis.call('ZADD', OUTBOX, string.format('%d', due_ms), CONVERSATION_ID)
  redis.call('HSET', ACKS, client_message_id, CONVERSATION_ID)
end

local function drop_sent(client_message_id)
  redis.call('DEL', SENT)
  redis.call('ZREM', OUTBOX, CONVERSATION_ID)
  redis.call('HDEL', ACKS, client_message_id)
end

-- What a job leaves behind at its end (settle.lua), one function for each kind of effect

-- A thread of this conversation waits for an answer. Its record stands under the wait's id, what scripts need to know beside it: the seq from
-- which on a text may be the answer. While a wait is open, jobs of the conversation say so (`kept`).
-- All waits of the agent have 64 MiB together: LOAD counts them (`waits_open`) and their bytes (`waits`), which are none of what waits to be handled.
local function count_wait(sign, bytes)
  take_off_all('waits_open', -sign)
  take_off_all('waits', -sign * bytes)
end

local function size_of_wait(waits, id)
  local record = redis.call('HGET', waits, id)
  return record and size_of(record) or 0
end

-- `more`: bytes of what is to be written before it. -> 'waits_full', or nil
local function wait_has_no_room(waits, id, record, more)
  more.bytes = more.bytes + size_of(record) - size_of_wait(waits, id)
  if tonumber(redis.call('HGET', LOAD, 'waits') or 0) + more.bytes > 67108864 then return 'waits_full' end
end

-- -> whether a message that may be the answer is taken in beyond its sender's share and the mailbox: one for each open question, while there is room at all
local function lets_in(waits, id, record, most)
  if redis.call('HEXISTS', waits, id) == 0 or redis.call('HEXISTS', waits, 'let:' .. id) == 1 then return false end
  return tonumber(redis.call('HGET', LOAD, 'total') or 0) + size_of(record) <= most
end

local function put_wait(waits, id, record)
  local before = size_of_wait(waits, id)
  if before > 0 then count_wait(-1, before) end
  count_wait(1, size_of(record))
  if redis.call('HSET', waits, id, record) == 1 then
    redis.call('HINCRBY', CONVERSATION, 'kept', 1)
    redis.call('HINCRBY', CONVERSATION, 'asks', 1)
  end
  redis.call('HSET', waits, 'from:' .. id, redis.call('HGET', CONVERSATION, 'next') or 1)
end

local function drop_wait(waits, id)
  redis.call('HDEL', waits, 'from:' .. id, 'bound:' .. id, 'let:' .. id)
  local before = size_of_wait(waits, id)
  if redis.call('HDEL', waits, id) == 1 then
    count_wait(-1, before)
    keep_less()
    if redis.call('HINCRBY', CONVERSATION, 'asks', -1) <= 0 then redis.call('HDEL', CONVERSATION, 'asks') end
  end
end

-- What was said in a conversation, where handlers ask for it (bus/records/kept.py): a list of records, of which each has its time in its fourth part.
-- Its bounds: 100 exchanges, 30 days, 256 KiB, and a share of what all histories may take.

local function exchanged_ms(record)
  return tonumber(string.match(part_of(record, 4), '^%d+') or 0)
end

-- Counts an exchange that comes (`sign` 1) or goes (-1): in its conversation, and on its day, so that what has expired with its key is not counted for ever.
-- -> the conversation's bytes
local function count_exchange(histories, record, sign)
  local bytes = string.format('%d', sign * size_of(record)) -- a text: Redis prints a number of Lua's at some cost
  local day = string.format('%d', math.floor(exchanged_ms(record) / 86400000))
  local mine = redis.call('HINCRBY', CONVERSATION, 'history', bytes)
  if mine <= 0 then redis.call('HDEL', CONVERSATION, 'history') end
  if redis.call('HINCRBY', histories, day, bytes) <= 0 then redis.call('HDEL', histories, day) end
  return mine
end

-- -> bytes of all histories, and their bound (nil for none)
local function bytes_of_histories(histories, now)
  local days, total, most = redis.call('HGETALL', histories), 0, nil
  local first = now / 86400000 - 31
  for i = 1, #days, 2 do
    if days[i] == 'most' then
      most = tonumber(days[i + 1])
    elseif tonumber(days[i]) < first then
      redis.call('HDEL', histories, days[i])
    else
      total = total + days[i + 1]
    end
  end
  return total, most
end

local function oldest_ms(history)
  return exchanged_ms(redis.call('LINDEX', history, '0'))
end

-- Two exchanges stay. Of more the oldest goes while there are too many, it is too old, or the conversation has more than its share (as has_room).
-- The conversation says when its oldest ended (`history_from`): looking at that one each time took as long as all else here. Where a former version,
-- which does not write it, has taken the oldest away it is too early, and one is looked at in vain.
local function keep_exchange(history, histories, record)
  local length = redis.call('RPUSH', history, record)
  local noted = length > 1 and redis.call('HGET', CONVERSATION, 'history_from')
  if length == 1 then redis.call('HDEL', CONVERSATION, 'history') end -- what was there has expired
  redis.call('PEXPIRE', history, '2592000000')
  local mine = count_exchange(histories, record, 1)
  local now = now_ms()
  local total, most = bytes_of_histories(histories, now)
  local from = tonumber(noted or nil) or (length > 1 and oldest_ms(history)) or exchanged_ms(record)
  local function goes()
    return length > 2 and (length > 100 or mine > 262144 or (most and mine > (most - total) / 4) or from < now - 2592000000)
  end
  if from < now - 2592000000 then from = oldest_ms(history) end
  while goes() do
    local oldest = redis.call('LPOP', history)
    mine, total, length = count_exchange(histories, oldest, -1), total - size_of(oldest), length - 1
    from = oldest_ms(history)
  end
  from = string.format('%d', from)
  if from ~= noted then redis.call('HSET', CONVERSATION, 'history_from', from) end
end

local function forget_history(history, histories)
  while redis.call('EXISTS', history) == 1 do count_exchange(histories, redis.call('LPOP', history), -1) end
  redis.call('HDEL', CONVERSATION, 'history', 'history_from')
end

-- A budget's counts of one subject (bus/records/budgets.py): a hash with `day`, and `messages` and `tokens` of it; `recent`, when messages of the last
-- minute were counted; `told`, until when its person hears nothing more, and by which job they were told.

-- -> the number of the present day (UTC)
local function today(now)
  return string.format('%d', math.floor(now / 86400000))
end

local function expire_budget(key)
  redis.call('EXPIRE', key, '172800') -- two days: of what is older nothing counts
end

local function begin_today(key, day)
  if redis.call('HGET', key, 'day') == day then return end
  redis.call('HDEL', key, 'messages', 'tokens')
  redis.call('HSET', key, 'day', day)
end

local function charge(key, tokens)
  begin_today(key, today(now_ms()))
  redis.call('HINCRBY', key, 'tokens', tokens)
  expire_budget(key)
end

-- What handlers keep for the whole agent: 10,000 keys and 4 MiB at most. The field without a name has the bytes of all of it.

-- `more`: keys and bytes of what is to be written before it. -> 'store_full', or nil
local function store_has_no_room(store, before, record, more)
  if record ~= '' and not before then more.keys = more.keys + 1 end
  more.bytes = more.bytes + (record ~= '' and size_of(record) or 0) - (before and size_of(before) or 0)
  if record == '' then return nil end
  local keys, bytes = redis.call('HLEN', store), tonumber(redis.call('HGET', store, '') or 0)
  if math.max(keys - 1, 0) + more.keys > 10000 or bytes + more.bytes > 4194304 then return 'store_full' end
end

-- `version`: the beginning of the record that was read, '' for none, '*' whatever is there. -> why it may not be written ('changed', 'store_full'), or nil
local function store_refuses(store, key, version, record, more)
  local before = redis.call('HGET', store, key)
  if version ~= '*' and version ~= string.sub(before or '', 1, 256) then return 'changed' end
  return store_has_no_room(store, before, record, more)
end

local function put_in_store(store, key, record)
  local before = redis.call('HGET', store, key)
  if record ~= '' then redis.call('HSET', store, key, record) else redis.call('HDEL', store, key) end
  local change = (record ~= '' and size_of(record) or 0) - (before and size_of(before) or 0)
  if redis.call('HINCRBY', store, '', string.format('%d', change)) <= 0 then redis.call('HDEL', store, '') end
end

-- The effects of a job's end (settle.lua) that few jobs have, in a function of their own: what only they need is made only where there is one.
-- -> { refused: by op, where it depends: -> why it may not be written, or nil; write: by op }
local function seldom_effects(waits, state, history, histories, timers, alarms, cards, store)
  local more, more_waits = { keys = 0, bytes = 0 }, { bytes = 0 } -- in the store; of all waits
  local refused = {
    wait = function(id, record) return wait_has_no_room(waits, id, record, more_waits) end,
    drop_wait = function(id) more_waits.bytes = more_waits.bytes - size_of_wait(waits, id) end,
    store = function(key, version, record) return store_refuses(store, key, version, record, more) end,
  }
  local write = {
    wait = function(id, record) put_wait(waits, id, record) end,
    drop_wait = function(id) drop_wait(waits, id) end,
    forget = function()
      redis.call('DEL', state, cards)
      forget_history(history, histories)
      for _, field in ipairs(redis.call('HKEYS', waits)) do
        if not string.find(field, ':', 1, true) then drop_wait(waits, field) end
      end
      for _, id in ipairs(redis.call('HKEYS', timers)) do drop_timer(timers, alarms, id) end
    end,
    store = function(key, _, record) put_in_store(store, key, record) end,
    timer = function(id, due_ms, record) put_timer(timers, alarms, id, due_ms, record) end,
    drop_timer = function(id) drop_timer(timers, alarms, id) end,
    card = function(id, card)
      if redis.call('HEXISTS', cards, id) == 0 then keep_card(cards, id, card) end -- a former version has shown it before
    end,
  }
  return { refused = refused, write = write }
end
