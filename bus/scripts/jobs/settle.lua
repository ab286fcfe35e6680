-- Ends a job that went well, as finish.lua does, together with its effects: what nobody sees until the job's end is written here, once.
-- KEYS board, waits, state, history, histories, timers of the conversation, alarms, cards, store
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 job_id  5 outcome: done, waiting, no_answer, stopped, over_budget, superseded or no_handler
--      6 attempt  7 delivery  8 when its handler began (ms), '' where that is noted already  9 how many replies
--      10… place, reply record of each reply; then op, a, b, c of each effect (those that need fewer words have '')
--         wait: its id, its record   drop_wait: its id   state: its record   exchange: its record   forget: nothing
--         store: a key of the owner's, the beginning of the record that was read ('' for none, '*' whatever is there), its record ('' for none)
--         timer: its id, when it is due (ms), its record   drop_timer: its id
--         card: the id of a card among the replies, what is kept of it (bus/records/cards.py)
-- -> fenced | full (too much waits to be sent: again later) | changed (what an effect was made from is another by now) | store_full, waits_full (they take no more) | done
-- Invariant: all effects are checked before anything is written, so all of them are written or none. First write is XACK (rule 16).
local STATE, HISTORY, HISTORIES = unpack(KEYS, OWN + 1, OWN + 3)
local REPLIES_FROM, WORDS = 10, 4
local EFFECTS_FROM = REPLIES_FROM + 2 * ARGV[9]
local seldom -- the effects that few jobs have
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return 'fenced' end
local has_reply, places, load, has_placed = unpack(redis.call('HMGET', CONVERSATION, 'reply', 'p:' .. ARGV[4], 'load', 'placed'))
if has_reply and ARGV[9] ~= '0' and not may_say() then return 'full' end
for i = EFFECTS_FROM, #ARGV, WORDS do
  local op = ARGV[i]
  if op ~= 'state' and op ~= 'exchange' then
    seldom = seldom or seldom_effects(unpack(KEYS, OWN, OWN + 7))
    if not seldom.write[op] then return redis.error_reply('ERR no effect is called ' .. op) end
    local why = seldom.refused[op] and seldom.refused[op](ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    if why then return why end
  end
end
settle(JOBS, JOBS_GROUP, ARGV[2])
count_write()
if places then
  recall_places(ARGV[4])
  load = nil -- its journal is counted there
end
local told = ARGV[3] .. ' ' .. ARGV[6] .. ' ' .. ARGV[7] .. ' ' .. ARGV[8]
for i = REPLIES_FROM, EFFECTS_FROM - 1, 2 do
  if redis.call('HEXISTS', EMITTED, ARGV[i]) == 0 then
    told = told .. ' ' .. ARGV[i]
    say(ARGV[i + 1], has_reply)
    has_reply = true
  end
end
for i = EFFECTS_FROM, #ARGV, WORDS do
  local op = ARGV[i]
  if op == 'state' then
    redis.call('SET', STATE, ARGV[i + 1])
  elseif op == 'exchange' then
    keep_exchange(HISTORY, HISTORIES, ARGV[i + 1])
  else
    seldom.write[op](ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  end
end
note(ARGV[5], ARGV[4], told)
start_next_job(ARGV[2], has_reply, load, has_placed)
return 'done'
