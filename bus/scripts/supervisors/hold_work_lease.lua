-- Takes or renews a work lease, which one supervisor holds at a time.
-- KEYS 1 work lease
-- ARGV 1 consumer  2 lease (ms)  3 a holder that is known to be dead, or ''
-- -> 1 mine | 0 another's
local holder = holder_of(KEYS[1], ARGV[2])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then return 0 end
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('DEL', KEYS[1]) -- the first write: a full Redis refuses SET, and then nothing is ever done (rule 16)
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
