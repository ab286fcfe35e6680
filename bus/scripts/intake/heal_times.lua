-- Sets times in the future in the memory of ids to now: older versions wrote them, and everything sent before them was `stale`.
-- KEYS board
-- ARGV 1 conversation_id
-- -> the latest time dropped from memory (ms), as it is now
count_write()
local now = now_ms()
for _, field in ipairs({ 'td', 't0', 't1', 't2' }) do
  if tonumber(redis.call('HGET', CONVERSATION, field) or 0) > now then redis.call('HSET', CONVERSATION, field, now) end
end
return dropped_ms(redis.call('GET', IDS))
