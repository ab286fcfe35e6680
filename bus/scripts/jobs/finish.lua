-- Ends a job that went well: deletes its entry, queues its handler's last replies, and starts the next job of the mailbox.
-- KEYS board
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 job_id  5 outcome: done, stopped, superseded or no_handler
--      6 attempt  7 delivery  8 when its handler began (ms), '' where that is noted already  9… place, reply record
-- -> fenced | full (too much waits to be sent: again later) | done. One entry of the ledger notes the end and the places of those replies.
-- Invariant: the conversation is busy or its mailbox is empty. First write is XACK, so that a full Redis drains (rule 16).
local REPLIES_FROM = 9
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
local has_reply, places, load, has_placed = unpack(redis.call('HMGET', CONVERSATION, 'reply', 'p:' .. ARGV[4], 'load', 'placed'))
if has_reply and #ARGV >= REPLIES_FROM and not may_say() then return 'full' end
settle(JOBS, JOBS_GROUP, ARGV[2])
count_write()
if places then
  recall_places(ARGV[4])
  load = nil -- its journal is counted there
end
local told = ARGV[3] .. ' ' .. ARGV[6] .. ' ' .. ARGV[7] .. ' ' .. ARGV[8]
if #ARGV >= REPLIES_FROM then
  local has_emitted = redis.call('EXISTS', EMITTED) == 1
  for i = REPLIES_FROM, #ARGV, 2 do
    if not (has_emitted and redis.call('HEXISTS', EMITTED, ARGV[i]) == 1) then
      told = told .. ' ' .. ARGV[i]
      say(ARGV[i + 1], has_reply)
      has_reply = true
    end
  end
end
note(ARGV[5], ARGV[4], told)
start_next_job(ARGV[2], has_reply, load, has_placed)
return 'done'
