-- Leases of running jobs are renewed, each only where it is still held: a stopped worker that wakes takes nothing back.
-- KEYS 1 stream (jobs or replies)
-- ARGV 1 group  2 consumer  3… entries
-- -> the entries that are no longer held
local lost = {}
for i = 3, #ARGV do
  if lease_is_mine(KEYS[1], ARGV[1], ARGV[i], ARGV[2]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
