-- Put in front of every script. Nothing here writes by itself; what writes is named after what it does.
-- Scripts check everything first and then do only writes that cannot fail (DESIGN rule 18).

local JOBS_GROUP = 'workers'
local REPLIES_GROUP = 'supervisors'
local ID_BYTES = 8
local IDS_TRIM_AT = 1536 * ID_BYTES
local IDS_KEPT = 1024 * ID_BYTES
local IDS_BLOCK = 512 * ID_BYTES

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The fencing token: is this entry pending at this consumer? (DESIGN rule 6)
local function lease_is_mine(stream, group, entry, consumer)
  return #redis.call('XPENDING', stream, group, entry, entry, 1, consumer) == 1
end

local function settle(stream, group, entry)
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
end

local function id_is_known(ids, id)
  local known = redis.call('GET', ids)
  if not known then return false end
  local from = 1
  while true do
    local at = string.find(known, id, from, true)
    if not at then return false end
    if at % ID_BYTES == 1 then return true end
    from = at + 1
  end
end

-- Remember a signed id. The conversation keeps, for each block of 512 ids, the latest ULID time in it (t0, t1, t2), so that
-- `td`, the latest time dropped from memory, is exact when the first block goes.
local function remember_id(conversation, ids, id, ulid_ms)
  local length = redis.call('APPEND', ids, id)
  local block = math.floor((length - 1) / IDS_BLOCK)
  local latest = tonumber(redis.call('HGET', conversation, 't' .. block) or 0)
  if ulid_ms > latest then redis.call('HSET', conversation, 't' .. block, ulid_ms) end
  if length >= IDS_TRIM_AT then
    redis.call('SET', ids, redis.call('GETRANGE', ids, length - IDS_KEPT, -1))
    local times = redis.call('HMGET', conversation, 'td', 't0', 't1', 't2')
    redis.call('HSET', conversation, 'td', math.max(tonumber(times[1] or 0), tonumber(times[2] or 0)),
      't0', times[3] or 0, 't1', times[4] or 0)
    redis.call('HDEL', conversation, 't2')
  end
end

local function next_seq(conversation)
  return tonumber(redis.call('HGET', conversation, 'next') or 1)
end

-- A seq is taken in (an inbound message, or one of our own): `next` moves over it and over our own that follow it.
local function take_seq(conversation, taken, seq)
  local next = next_seq(conversation)
  if seq < next then return end
  next = seq + 1
  while redis.call('ZSCORE', taken, next) do next = next + 1 end
  redis.call('ZREMRANGEBYSCORE', taken, '-inf', next - 1)
  redis.call('HSET', conversation, 'next', next)
end

local function session_is_current(session, version)
  return (redis.call('HGET', session, 'v') or '0') == version
end

local function store_session(session, version, sealed, epoch)
  redis.call('HSET', session, 'v', tonumber(version) + 1, 'b', sealed, 'e', epoch)
end

-- Start a job: one entry of a conversation in `jobs` at a time.
local function start_job(jobs, conversation, record, attempt, deliveries)
  local entry = redis.call('XADD', jobs, '*', 'r', record, 'a', attempt, 'd', deliveries)
  redis.call('HSET', conversation, 'entry', entry)
end

-- The job has ended: the next of the mailbox, or idle.
local function start_next_job(jobs, conversation, mailbox, emitted)
  redis.call('DEL', emitted)
  local head = redis.call('ZPOPMIN', mailbox)
  if #head == 0 then
    redis.call('HDEL', conversation, 'entry')
  else
    start_job(jobs, conversation, head[1], 1, 1)
  end
end

-- The head of the out-box into `replies`, unless one is under way already ('reply': its entry, or 'sent').
local function start_next_reply(replies, conversation, out_box)
  if redis.call('HEXISTS', conversation, 'reply') == 1 then return end
  local head = redis.call('LINDEX', out_box, 0)
  if head then
    redis.call('HSET', conversation, 'reply', redis.call('XADD', replies, '*', 'r', head))
  end
end

local function bury(dead, record, reason, attempt, deliveries)
  redis.call('XADD', dead, '*', 'r', record, 'why', reason, 'a', attempt, 'd', deliveries, 'at', now_ms())
end
