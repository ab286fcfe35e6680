-- Moves the cursor after a polled page, if it still has the value that the page was asked with (DESIGN rule 2).
-- KEYS 1 cursor  2 write count
-- ARGV 1 value read ('' for none, or for one that is no id)  2 new value
-- -> 1 moved | 0 another supervisor has moved it
local cursor = redis.call('MGET', KEYS[1])[1] or '' -- MGET reads a value of another type as none
if string.find(cursor, '[\128-\255]') then cursor = '' end
if cursor ~= ARGV[1] then return 0 end
redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2])
return 1
