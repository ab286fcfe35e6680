-- Replaces a row of the grant ledger and appends the log entry about it, which is chained to the one before (PROTOCOL §5.7).
-- KEYS 1 row  2 owners  3 log  4 head  5 write count
-- ARGV 1 row version read  2 sealed row  3 owner_id  4 head read (hex, '' for an empty log)  5 new head (hex)  6 sealed entry
-- -> 1 | 0 the row or the log has changed meanwhile
if not is_current(KEYS[1], ARGV[1]) then return 0 end
if (redis.call('GET', KEYS[4]) or '') ~= ARGV[4] then return 0 end
redis.call('INCR', KEYS[5])
redis.call('HSET', KEYS[1], 'v', tonumber(ARGV[1]) + 1, 'b', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('RPUSH', KEYS[3], ARGV[5] .. ARGV[6])
redis.call('SET', KEYS[4], ARGV[5])
return 1
