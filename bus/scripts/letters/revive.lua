-- Puts a dead letter back on its way: a job into the mailbox, a reply into the out-box, a committed send into the outbox.
-- KEYS board, behind
-- ARGV 1 conversation_id  2 entry of the dead letters  3 'job', 'placed' (a job that no message began), 'reply' or 'sent'  4 job_id  5 seq (of a job)
--      6 client_message_id (of a committed send)  7 consumer
-- -> gone | busy (another reply of the conversation is on its way: later) | revived
-- Invariant: what the job had emitted before stays emitted (P2), what its thread had noted stays noted.
local letter = fields_of(DEAD, ARGV[2])
if not letter then return 'gone' end
if ARGV[3] == 'sent' and redis.call('HEXISTS', CONVERSATION, 'reply') == 1 then return 'busy' end
redis.call('XDEL', DEAD, ARGV[2])
count_write()
if is_idle() then begin_work() end
note('revived', ARGV[4] ~= '' and ARGV[4] or string.match(letter.w or '', '^%S*'), letter.why)
if ARGV[3] == 'job' or ARGV[3] == 'placed' then
  if ((letter.p or '') ~= '' or letter.j) and redis.call('HSET', CONVERSATION, 'p:' .. ARGV[4], letter.p) == 1 then
    redis.call('HINCRBY', CONVERSATION, 'kept', 1)
  end
  if letter.j then redis.call('HSET', CONVERSATION, 'j:' .. ARGV[4], letter.j) end
  if ARGV[3] == 'placed' then
    join_behind(letter.r, KEYS[OWN])
  else
    deliver(tonumber(ARGV[5]), letter.r, unpack(redis.call('HMGET', CONVERSATION, 'entry', 'kept')))
  end
elseif ARGV[3] == 'reply' then
  say(letter.r)
else
  put_sent(ARGV[6], letter.r, ARGV[7], letter.w or ' ', now_ms(), '')
end
return 'revived'
