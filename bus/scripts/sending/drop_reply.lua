-- Makes a reply that can never be committed or sent a dead letter, so that nothing blocks a conversation for ever (rule 13).
-- KEYS board, the turn of what comes from outside (where this does)
-- ARGV 1 conversation_id  2 entry of `replies` or ''  3 consumer  4 client_message_id (when it was committed) or ''  5 reason
--      6 job_id  7 place (of what was committed both are known here)
-- -> done_before | dropped
local record
local what = ARGV[6] .. ' ' .. ARGV[7]
if ARGV[2] ~= '' then
  if redis.call('HGET', CONVERSATION, 'reply') ~= ARGV[2] then return 'done_before' end
  if not lease_is_mine(REPLIES, REPLIES_GROUP, ARGV[2], ARGV[3]) then return 'done_before' end
  settle(REPLIES, REPLIES_GROUP, ARGV[2])
  record = redis.call('LPOP', OUT_BOX)
else
  if redis.call('HGET', SENT, 'cmid') ~= ARGV[4] then return 'done_before' end
  local sent = redis.call('HMGET', SENT, 'r', 'what')
  record, what = sent[1], sent[2] or what
  drop_sent(ARGV[4])
end
count_write()
if record then bury(record, ARGV[5], 0, 0, '', what) end
local job, place = string.match(what, '^(%S*) ?(.*)$')
is_said(place)
leave_turn(KEYS[OWN], job)
note('dropped', job, place .. ' ' .. ARGV[5])
end_reply(redis.call('HGET', CONVERSATION, 'entry'))
return 'dropped'
