-- Replaces an entry of a stream by one with the re-sealed record; the holder of the old one is fenced (keys rotate-store).
-- KEYS 1 stream  2 conversation  3 write count
-- ARGV 1 entry  2 record read  3 record re-sealed  4 group
--      5 the conversation's field that names the entry: 'entry' or 'reply'
-- -> 1 | 0 it is no longer there
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not found then return 0 end
local fields, matches = found[2], false
for i = 1, #fields, 2 do
  if fields[i] == 'r' and fields[i + 1] == ARGV[2] then
    fields[i + 1] = ARGV[3]
    matches = true
  end
end
if not matches then return 0 end
settle(KEYS[1], ARGV[4], ARGV[1])
redis.call('INCR', KEYS[3])
local entry = redis.call('XADD', KEYS[1], '*', unpack(fields))
if redis.call('HGET', KEYS[2], ARGV[5]) == ARGV[1] then redis.call('HSET', KEYS[2], ARGV[5], entry) end
return 1
