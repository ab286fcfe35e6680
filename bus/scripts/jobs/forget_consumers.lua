-- Removes consumers of processes that are gone, if they have nothing pending (XGROUP DELCONSUMER would delete it).
-- KEYS 1 stream
-- ARGV 1 group  2 not heard for (ms)
-- -> how many were removed
local removed = 0
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    removed = removed + 1
  end
end
return removed
