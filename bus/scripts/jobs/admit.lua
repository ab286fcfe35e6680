-- Counts a message against budgets when its job begins; or says that it is beyond one of them, and then counts nothing.
-- KEYS board, the sender's budget, that of each subject
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 job_id  5 name and  6 entry of the journal that says that it was counted
--      7 for how long its sender is not told again (ms), '' where they are told nothing
--      8… of each limit: which of the subjects, its kind, how many at most
-- -> fenced | admitted | beyond, number of the limit, 1: its sender is to be told
-- Invariant: a job is counted once, whatever its runs: that it was is in its thread's journal. The job that told somebody tells them in each of its runs.
local SENDER, FIRST, LIMITS = KEYS[OWN], OWN, 8
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return { 'fenced' } end
if redis.call('HEXISTS', EMITTED, '=' .. ARGV[5]) == 1 then return { 'admitted' } end
local now = now_ms()
local counted = {} -- of each subject: today's numbers, and the times of the last minute
local function counts(key)
  if not counted[key] then
    local day, messages, tokens, recent = unpack(redis.call('HMGET', key, 'day', 'messages', 'tokens', 'recent'))
    local is_today, times = day == today(now), {}
    for time in string.gmatch(recent or '', '%d+') do
      if tonumber(time) > now - 60000 and tonumber(time) <= now then times[#times + 1] = time end
    end
    counted[key] = { messages = is_today and tonumber(messages or 0) or 0, tokens = is_today and tonumber(tokens or 0) or 0, times = times }
  end
  return counted[key]
end
local function has(key, kind)
  if kind == 'messages_per_minute' then return #counts(key).times end
  return kind == 'tokens_per_day' and counts(key).tokens or counts(key).messages
end
for i = LIMITS, #ARGV, 3 do
  if has(KEYS[FIRST + ARGV[i]], ARGV[i + 1]) >= tonumber(ARGV[i + 2]) then
    if ARGV[7] == '' then return { 'beyond', (i - LIMITS) / 3, 0 } end
    local until_ms, by = string.match(redis.call('HGET', SENDER, 'told') or '', '^(%d+) (.*)$')
    if until_ms and by ~= ARGV[4] and tonumber(until_ms) > now and tonumber(until_ms) <= now + ARGV[7] then
      return { 'beyond', (i - LIMITS) / 3, 0 }
    end
    count_write()
    if by ~= ARGV[4] then redis.call('HSET', SENDER, 'told', string.format('%d', now + ARGV[7]) .. ' ' .. ARGV[4]) end
    expire_budget(SENDER)
    return { 'beyond', (i - LIMITS) / 3, 1 }
  end
end
count_write()
for key, one in pairs(counted) do
  begin_today(key, today(now))
  one.times[#one.times + 1] = string.format('%d', now)
  redis.call('HSET', key, 'recent', table.concat(one.times, ' '))
  redis.call('HINCRBY', key, 'messages', 1)
  expire_budget(key)
end
redis.call('HSET', EMITTED, '=' .. ARGV[5], ARGV[6])
count_journal(size_of(ARGV[6]))
return { 'admitted' }
