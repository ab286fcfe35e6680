-- Copies a dead letter under its own id into the stream that will replace the present one (keys rotate-store).
-- KEYS 1 copy
-- ARGV 1 entry, or '' to begin a new copy  2… fields
-- -> 1
if ARGV[1] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('XADD', KEYS[1], unpack(ARGV))
end
return 1
