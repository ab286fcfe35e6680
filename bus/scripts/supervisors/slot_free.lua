-- Frees a slot: for its holder after the relay's close frame was heard, or for a supervisor that knows that the holder is gone.
-- KEYS 1 slots  2 ghosts  3 the slot's lease
-- ARGV 1 holder  2 slot  3 how long its ghost is polled for (ms), 0 when it has closed its connection
-- -> 1 free now | 0 another's, or free before
local holder = redis.call('GET', KEYS[3])
if not holder then
  local record = redis.call('HGET', KEYS[1], ARGV[2])
  holder = record and cjson.decode(record).holder
end
if holder ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3])
redis.call('HDEL', KEYS[1], ARGV[2])
if ARGV[3] ~= '0' then redis.call('ZADD', KEYS[2], now_ms() + tonumber(ARGV[3]), ARGV[1]) end
return 1
