-- What must be known before a message is opened; writes nothing.
-- KEYS 1 conversation  2 ids  3 session
-- ARGV 1 signed id (8 bytes)
-- -> known (0/1), next, dropped time (ms), session version, sealed record or false, session epoch,
--    pinned kind or false, pinned person or false
local pins = redis.call('HMGET', KEYS[1], 'kind', 'person')
local session = redis.call('HMGET', KEYS[3], 'v', 'b', 'e')
return { id_is_known(KEYS[2], ARGV[1]) and 1 or 0, next_seq(KEYS[1]),
  tonumber(redis.call('HGET', KEYS[1], 'td') or 0),
  tonumber(session[1] or 0), session[2], tonumber(session[3] or 0), pins[1], pins[2] }
