-- Put in front of every script. Nothing here writes by itself; what writes is named after what it does.
-- Scripts check everything first and then do only writes that cannot fail (DESIGN rule 18). A full Redis refuses a script whose
-- first write may take memory: those that drain begin with one that cannot (rule 16).
--
-- A script about a conversation has the board as its first KEYS, in this order (bus/keys.py `board`), its own ones from OWN on,
-- and the conversation's id as ARGV[1].
local CONVERSATION, IDS, TAKEN, MAILBOX, PARKED, TOGETHER, EMITTED, OUT_BOX, SENT = unpack(KEYS, 1, 9)
local JOBS, REPLIES, DUE, DEAD, OUTBOX, ACKS, BUSY, WAITING, INTERRUPTED, INTERRUPTS, STREAMS, POLICY, EPOCH, GENERATION, LEDGER =
  unpack(KEYS, 10, 24)
local OWN = 25
local CONVERSATION_ID = ARGV[1]

local JOBS_GROUP = 'workers'
local REPLIES_GROUP = 'supervisors'
local ID_BYTES = 8
local IDS_TRIM_AT = 1536 * ID_BYTES
local IDS_KEPT = 1024 * ID_BYTES
local IDS_BLOCK = 512 * ID_BYTES
local IDLE_SECONDS = 90 * 86400 -- the id memory of a conversation that says nothing for so long is dropped
local LEDGER_KEPT = 200000      -- about 20 MB
local MOST_WAITING = 100        -- in one mailbox, unless the handler's code says otherwise

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function count_write()
  return redis.call('INCR', GENERATION)
end

-- The ledger: one event of a message, without content. All entries have the same fields, which Redis then stores once.
local function note_in(ledger, event, job, detail)
  redis.call('XADD', ledger, 'MAXLEN', '~', LEDGER_KEPT, '*', 'e', event, 'j', job, 'x', detail or '')
end

local function note(event, job, detail)
  note_in(LEDGER, event, job, detail)
end

-- The fencing token: is this entry pending at this consumer? (DESIGN rule 6)
local function lease_is_mine(stream, group, entry, consumer)
  return #redis.call('XPENDING', stream, group, entry, entry, 1, consumer) == 1
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

local function id_is_known(id)
  local known = redis.call('GET', IDS)
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
local function dropped_ms()
  local times = redis.call('HMGET', CONVERSATION, 'td', 't0', 't1', 't2')
  local dropped = tonumber(times[1] or 0)
  if redis.call('EXISTS', IDS) == 0 then
    for i = 2, 4 do dropped = math.max(dropped, tonumber(times[i] or 0)) end
  end
  return dropped
end

local function remember_id(id, ulid_ms)
  if redis.call('EXISTS', IDS) == 0 then
    local dropped = dropped_ms()
    if dropped > 0 then redis.call('HSET', CONVERSATION, 'td', dropped) end
    redis.call('HDEL', CONVERSATION, 't0', 't1', 't2')
  end
  local length = redis.call('APPEND', IDS, id)
  local block = math.floor((length - 1) / IDS_BLOCK)
  local latest = tonumber(redis.call('HGET', CONVERSATION, 't' .. block) or 0)
  if ulid_ms > latest then redis.call('HSET', CONVERSATION, 't' .. block, ulid_ms) end
  if length >= IDS_TRIM_AT then
    redis.call('SET', IDS, redis.call('GETRANGE', IDS, length - IDS_KEPT, -1))
    local times = redis.call('HMGET', CONVERSATION, 'td', 't0', 't1', 't2')
    redis.call('HSET', CONVERSATION, 'td', math.max(tonumber(times[1] or 0), tonumber(times[2] or 0)),
      't0', times[3] or 0, 't1', times[4] or 0)
    redis.call('HDEL', CONVERSATION, 't2')
  end
end

local function next_seq()
  return tonumber(redis.call('HGET', CONVERSATION, 'next') or 1)
end

-- A seq is taken in (an inbound message, or one of our own): `next` moves over it and over our own that follow it.
local function take_seq(seq)
  local next = next_seq()
  if seq < next then return end
  next = seq + 1
  while redis.call('ZSCORE', TAKEN, next) do next = next + 1 end
  redis.call('ZREMRANGEBYSCORE', TAKEN, '-inf', next - 1)
  redis.call('HSET', CONVERSATION, 'next', next)
end

local function how_taken(seq, next)
  return seq == next and 'next' or (seq > next and 'jump' or 'late')
end

-- Sessions

local function session_is_current(session, version)
  return (redis.call('HGET', session, 'v') or '0') == version
end

local function store_session(session, version, sealed, epoch)
  redis.call('HSET', session, 'v', tonumber(version) + 1, 'b', sealed, 'e', epoch)
end

-- A conversation at work and at rest

local function keep_at_work()
  if redis.call('ZSCORE', BUSY, CONVERSATION_ID) then return end -- its memory is kept since then
  redis.call('ZADD', BUSY, 'NX', now_ms(), CONVERSATION_ID)
  redis.call('PERSIST', IDS)
  redis.call('PERSIST', TAKEN)
end

local function rest_if_idle()
  local under_way = redis.call('HMGET', CONVERSATION, 'entry', 'reply')
  if under_way[1] or under_way[2] then return end
  redis.call('ZREM', BUSY, CONVERSATION_ID)
  redis.call('EXPIRE', IDS, IDLE_SECONDS)
  redis.call('EXPIRE', TAKEN, IDLE_SECONDS)
end

local function policy(name)
  return redis.call('HGET', POLICY, name)
end

local function room_in_mailbox()
  return tonumber(policy('most') or MOST_WAITING) - redis.call('ZCARD', MAILBOX)
end

-- Start a job: one entry of a conversation in `jobs` at a time.
local function start_job(record, attempt, deliveries, strikes)
  local entry = redis.call('XADD', JOBS, '*', 'r', record, 'a', attempt, 'd', deliveries, 's', strikes)
  redis.call('HSET', CONVERSATION, 'entry', entry)
  keep_at_work()
  return entry
end

local function interrupt(entry)
  redis.call('SADD', INTERRUPTED, entry)
  redis.call('PUBLISH', INTERRUPTS, entry)
end

-- What is parked moves up as far as the mailbox has room, in order.
local function unpark()
  local room = room_in_mailbox()
  if room <= 0 or redis.call('EXISTS', PARKED) == 0 then return end
  local moved = redis.call('ZPOPMIN', PARKED, room)
  for i = 1, #moved, 2 do redis.call('ZADD', MAILBOX, moved[i + 1], moved[i]) end
  redis.call('INCRBY', WAITING, #moved / 2)
end

-- The job of `entry` has ended: the next of the mailbox, or idle.
local function start_next_job(entry)
  redis.call('DEL', EMITTED, TOGETHER)
  redis.call('HDEL', CONVERSATION, 'entry', 'began', 'frozen')
  redis.call('SREM', INTERRUPTED, entry)
  unpark()
  local head = redis.call('ZPOPMIN', MAILBOX)
  if #head == 0 then return rest_if_idle() end
  redis.call('DECR', WAITING)
  local started = start_job(head[1], 1, 1, 0)
  if policy('busy') == 'interrupt' and redis.call('EXISTS', MAILBOX) == 1 then interrupt(started) end
end

-- Into the mailbox, in the order of seqs. Under `park` the latest of all that wait is parked where there is no room for it.
local function enqueue(seq, record)
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

-- `places`: what a job had emitted. `what`: job id and place that a committed send answers; its record does not say.
local function bury(record, reason, attempt, deliveries, places, what)
  redis.call('XADD', DEAD, '*', 'r', record, 'why', reason, 'a', attempt, 'd', deliveries, 'at', now_ms(),
    'p', places or '', 'w', what or '')
end

-- A dead letter that was brought back had emitted something before: its job goes on from there (P2).
local function recall_places(job)
  local places = redis.call('HGET', CONVERSATION, 'p:' .. job)
  redis.call('HDEL', CONVERSATION, 'p:' .. job)
  for place in string.gmatch(places or '', '%S+') do redis.call('HSET', EMITTED, place, 1) end
end

-- The running job, and those that were handled together with it, become dead letters.
local function bury_job(fields, reason, job)
  recall_places(job) -- it may never have begun
  local places = table.concat(redis.call('HKEYS', EMITTED), ' ')
  bury(fields.r, reason, fields.a, fields.d, places)
  for _, record in ipairs(redis.call('LRANGE', TOGETHER, 0, -1)) do bury(record, reason, 1, 1) end
end

-- A message goes to the handler: at once, or behind the one that is under way.
local function deliver(seq, record)
  local entry = redis.call('HGET', CONVERSATION, 'entry')
  if not entry then return start_job(record, 1, 1, 0) end
  enqueue(seq, record)
  if policy('busy') ~= 'interrupt' then return end
  if entry ~= 'due' then return interrupt(entry) end
  redis.call('ZREM', DUE, CONVERSATION_ID) -- what waits for its second run is superseded without it
  note('superseded', redis.call('HGET', CONVERSATION, 'retry_j'))
  redis.call('HDEL', CONVERSATION, 'retry', 'retry_a', 'retry_d', 'retry_s', 'retry_j')
  start_next_job(entry)
end

-- The head of the out-box into `replies`, unless one is under way already ('reply': its entry, or 'sent').
local function start_next_reply()
  if redis.call('HEXISTS', CONVERSATION, 'reply') == 1 then return end
  local head = redis.call('LINDEX', OUT_BOX, 0)
  if not head then return rest_if_idle() end
  redis.call('HSET', CONVERSATION, 'reply', redis.call('XADD', REPLIES, '*', 'r', head))
  keep_at_work()
end

local function say(record)
  redis.call('RPUSH', OUT_BOX, record)
  start_next_reply()
end

-- An outbox record waits for its acknowledgement. `what`: job id and place that it answers.
local function put_sent(client_message_id, record, holder, what, due_ms)
  redis.call('HSET', CONVERSATION, 'reply', 'sent')
  redis.call('HSET', SENT, 'cmid', client_message_id, 'r', record, 'holder', holder, 'what', what)
  redis.call('ZADD', OUTBOX, due_ms, CONVERSATION_ID)
  redis.call('HSET', ACKS, client_message_id, CONVERSATION_ID)
  keep_at_work()
end

local function drop_sent(client_message_id)
  redis.call('DEL', SENT)
  redis.call('ZREM', OUTBOX, CONVERSATION_ID)
  redis.call('HDEL', ACKS, client_message_id)
end
