-- Reads what is known of some conversations by one command, since most commands are on their way for longer than they take.
-- KEYS the hash of each conversation…
-- -> for each: kind (nil before its first message), person or group, four times of messages taken in (ms; bus/scripts/_library.lua)
local found = {}
for at, key in ipairs(KEYS) do
  local facts = redis.pcall('HMGET', key, 'kind', 'person', 't0', 't1', 't2', 'td') -- one of another type hides no other
  for i = 1, 6 do found[(at - 1) * 6 + i] = facts[i] or false end
end
return found
