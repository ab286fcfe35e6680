-- Reads many rows of the grant ledger at once; writes nothing.
-- KEYS one row each
-- -> for each row: version or false, sealed row or false
local rows = {}
for i = 1, #KEYS do
  local row = redis.pcall('HMGET', KEYS[i], 'v', 'b') -- one of another type hides no other
  rows[i * 2 - 1], rows[i * 2] = row[1] or false, row[2] or false
end
return rows
