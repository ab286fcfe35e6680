-- Lists what messages from an older version wait for, so that they are found by it like all others.
-- KEYS 1 what waits for what  2 write count  3... quarantined messages
-- ARGV of each its name and what it waits for
-- -> how many of them are there
redis.call('INCR', KEYS[2])
local found = 0
for place = 1, #ARGV, 2 do
  local message = KEYS[2 + (place + 1) / 2]
  local why = redis.call('HGET', message, 'why')
  if why then
    redis.call('HSETNX', message, 'for', ARGV[place + 1])
    redis.call('ZADD', KEYS[1], 0, waiting_member(redis.call('HGET', message, 'for'), why, ARGV[place]))
    found = found + 1
  end
end
return found
