-- Renews the leases of entries that the consumer still holds: a stopped worker that wakes up takes nothing back.
-- KEYS 1 stream (jobs or replies)  2 interrupted
-- ARGV 1 group  2 consumer  3… entries
-- -> the entries that are no longer held, those that are superseded
local lost, superseded = {}, {}
for i = 3, #ARGV do
  if lease_is_mine(KEYS[1], ARGV[1], ARGV[i], ARGV[2]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    if redis.call('SISMEMBER', KEYS[2], ARGV[i]) == 1 then superseded[#superseded + 1] = ARGV[i] end
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return { lost, superseded }
