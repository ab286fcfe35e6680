-- Takes a slot or renews the held one; its holder may be connected to the relay (DESIGN §4). Only Redis' clock counts.
-- KEYS 1 slots (hash: slot -> its holder's record; outlives the lease)  2 ghosts  3 ghost_poll  4 standby  5… a lease per slot
-- ARGV 1 holder  2 record (JSON with `holder`)  3 lease (ms)  4 how long a ghost is polled for (ms)  5 how often (ms)
--      6… holders whose lease was seen to have run out, and not renewed since: theirs may be taken
-- -> slot or 0, poll now (0/1), a standby waits (0/1), slot's lease is held (0/1), its record or '', …
-- A lease that ran out without being given up leaves a ghost: the relay may still push into that connection (rule 5). A deaf supervisor does
-- not poll for ghosts. One that yields, since it gave its slot up, takes a free one only if no other waits; a timer would let it win now and then.
-- The first write is PEXPIRE, DEL, HDEL or ZREMRANGEBYSCORE: a full Redis allows it, and then the others (rule 16).
local FIRST_LEASE = 4
local me = cjson.decode(ARGV[2])
local waits = holder_of(KEYS[4], ARGV[3])
local yields = me.yields and waits and waits ~= ARGV[1]
local abandoned = {}
for i = 6, #ARGV do abandoned[ARGV[i]] = true end
local held, mine, free, ghosts, answer = 0, 0, 0, {}, {}
for i = FIRST_LEASE + 1, #KEYS do
  local slot = i - FIRST_LEASE
  local holder = holder_of(KEYS[i], ARGV[3])
  local record = redis.call('HGET', KEYS[1], slot)
  local former = not holder and record and cjson.decode(record).holder
  if holder == ARGV[1] then
    held = slot
  elseif former == ARGV[1] then
    mine = slot
  elseif not holder and not yields and (not former or abandoned[former]) then
    if free == 0 then free = slot end
    if former then ghosts[#ghosts + 1] = { slot, former } end
  end
  answer[#answer + 1] = holder and 1 or 0
  answer[#answer + 1] = record or ''
end
local slot = held > 0 and held or mine > 0 and mine or free

if held > 0 then
  redis.call('PEXPIRE', KEYS[FIRST_LEASE + held], ARGV[3])
elseif slot > 0 then
  redis.call('DEL', KEYS[FIRST_LEASE + slot])
  redis.call('SET', KEYS[FIRST_LEASE + slot], ARGV[1], 'PX', ARGV[3])
end
local now = now_ms()
for _, ghost in ipairs(ghosts) do
  redis.call('HDEL', KEYS[1], ghost[1])
  redis.call('ZADD', KEYS[2], now + tonumber(ARGV[4]), ghost[2])
end
if slot > 0 and redis.call('HGET', KEYS[1], slot) ~= ARGV[2] then redis.call('HSET', KEYS[1], slot, ARGV[2]) end

local poll = 0
if slot > 0 and redis.call('ZCARD', KEYS[2]) > 0 and not me.deaf then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  holder_of(KEYS[3], ARGV[5])
  if redis.call('ZCARD', KEYS[2]) > 0 and redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[5]) then poll = 1 end
end
if slot == 0 and not yields and redis.call('PTTL', KEYS[4]) < tonumber(ARGV[3]) / 2 then
  redis.call('DEL', KEYS[4])
  redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[3])
end
return { slot, poll, redis.call('EXISTS', KEYS[4]), unpack(answer) }
