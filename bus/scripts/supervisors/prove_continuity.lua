-- Checks whether Redis has kept everything since the last check. If that is not proven it raises the epoch, so that present sessions never
-- encrypt again (DESIGN rule 17), moves prekey ids far beyond those that may have been given out, and requests a new signed prekey.
-- KEYS 1 epoch  2 write count  3 interrupted  4 prekey_state  5 continuity  6… all slots
-- ARGV 1 epoch known  2 highest write count seen  3 how far signed and  4 one-time prekey ids go on
--      5 this server  6 commits that this process has heard of  7 commits that were witnessed  8 '1': it is known that it went back
--      9… servers that this one may follow with all that they held
-- -> same | older | other | unproven, epoch, write count, commits
-- A number that is none, or a value of another type, counts as lost: it is written anew.
-- Invariant: of supervisors that notice the same only the first raises the epoch: it writes this server's name, and an epoch above all known ones.
-- If this server's name is there already the witness need not be asked: it was when the name was written, and the memory of one process does
-- not go back.
local epoch, count = unpack(redis.call('MGET', KEYS[1], KEYS[2]))
local is_damaged = false
-- MGET reads a value of another type as none, HMGET does not.
local function hash_there(key)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then is_damaged = true end
  return kind == 'hash'
end
local function is_whole(value)
  return not value or (string.match(value, '^%d+$') and #value < 16)
end
local function whole(value)
  if is_whole(value) then return tonumber(value or 0) end
  is_damaged = true
  return 0
end
local server, commits
if hash_there(KEYS[5]) then server, commits = unpack(redis.call('HMGET', KEYS[5], 'server', 'commits')) end
epoch, count, commits = whole(epoch), whole(count), whole(commits)
local damaged_ids = {}
if hash_there(KEYS[4]) then
  for _, field in ipairs({ 'signed', 'one_time', 'rotate_through' }) do
    if not is_whole(redis.call('HGET', KEYS[4], field)) then damaged_ids[#damaged_ids + 1] = field end
  end
end
is_damaged = is_damaged or #damaged_ids > 0
local may_follow = false
for i = 9, #ARGV do may_follow = may_follow or ARGV[i] == server end
local found = 'same'
if is_damaged or ARGV[8] == '1' or count < tonumber(ARGV[2]) or epoch < tonumber(ARGV[1]) or commits < tonumber(ARGV[6]) then
  found = 'older'
elseif server == ARGV[5] or (not server and (count == 0 or redis.call('EXISTS', unpack(KEYS, 6)) > 0)) then
  -- Nothing was ever written here; or a supervisor of a version that notes no server is connected, which has looked by itself.
  found = 'same'
elseif may_follow then
  if commits < tonumber(ARGV[7]) then found = 'older' end
else
  found = server and 'other' or 'unproven'
end
if found == 'same' and server == ARGV[5] then return { found, epoch, count, commits } end

redis.call('SREM', KEYS[3], '') -- the first write takes no memory: a full Redis may go back too (rule 16)
if is_damaged then
  for _, key in ipairs({ KEYS[4], KEYS[5] }) do
    if not hash_there(key) then redis.call('DEL', key) end
  end
  if #damaged_ids > 0 then redis.call('HDEL', KEYS[4], unpack(damaged_ids)) end
end
redis.call('HSET', KEYS[5], 'server', ARGV[5])
if found == 'same' then return { found, epoch, count, commits } end
if server ~= ARGV[5] or epoch <= tonumber(ARGV[1]) then
  epoch = math.max(epoch, tonumber(ARGV[1])) + 1 -- also for one that knows of no epoch yet: what came back may be of any
  redis.call('SET', KEYS[1], epoch)
  redis.call('HSET', KEYS[4], 'rotate_through', redis.call('HINCRBY', KEYS[4], 'signed', ARGV[3]))
  redis.call('HINCRBY', KEYS[4], 'one_time', ARGV[4])
end
count = math.max(count, tonumber(ARGV[2])) + 1
redis.call('SET', KEYS[2], count)
commits = math.max(commits, tonumber(ARGV[6]), tonumber(ARGV[7]))
redis.call('HSET', KEYS[5], 'commits', commits)
return { found, epoch, count, commits }
