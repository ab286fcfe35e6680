-- Reads many rows of the grant ledger at once; writes nothing.
-- KEYS one row each
-- -> for each row: version or false, sealed row or false
local rows = {}
for i = 1, #KEYS do
  local row = redis.call('HMGET', KEYS[i], 'v', 'b')
  rows[i * 2 - 1], rows[i * 2] = row[1], row[2]
end
return rows
