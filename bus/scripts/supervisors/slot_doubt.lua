-- Makes a silent connection a ghost before it is known to be dead, so that another supervisor polls for it; or clears that.
-- KEYS 1 ghosts  2 ghost_poll
-- ARGV 1 the ghost's name  2 how long it is polled for (ms), 0: it was heard
-- -> 1
redis.call('ZREM', KEYS[1], ARGV[1]) -- the first write (rule 16)
if ARGV[2] ~= '0' then
  redis.call('ZADD', KEYS[1], now_ms() + tonumber(ARGV[2]), ARGV[1])
  redis.call('DEL', KEYS[2])
end
return 1
