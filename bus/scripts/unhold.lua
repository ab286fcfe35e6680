-- A message waits at the relay no more: it was taken in, or the relay has it no more.
-- KEYS board, notes of its sender
-- ARGV 1 conversation_id  2 message_id  3 sender  4 '1': the relay has it no more
-- -> 1 | 0 it was not noted
if redis.call('HDEL', KEYS[OWN], ARGV[2]) == 0 then return 0 end
count_write()
for _, field in ipairs({ 's:' .. ARGV[3], 'total' }) do
  if redis.call('HINCRBY', HELD, field, -1) <= 0 then redis.call('HDEL', HELD, field) end
end
if redis.call('HINCRBY', CONVERSATION, 'held', -1) <= 0 then redis.call('HDEL', CONVERSATION, 'held') end
if ARGV[4] == '1' then
  bury('', 'gone_at_relay', 0, 0, '', ARGV[2] .. ' ') -- its content is lost; that it was is not
  note('dead', ARGV[2], 'gone_at_relay')
end
return 1
