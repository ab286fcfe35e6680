-- Makes a timer that is due a job of its conversation, in one step: it is moved and placed, or nothing is.
-- KEYS board, timers of the conversation, alarms, behind
-- ARGV 1 conversation_id  2 the timer's id  3 its record as it was read  4 job_id  5 job record  6 its kind  7 when it is due again (ms), ''
--      if it is over  8 its record then  9 most placed jobs that wait in one conversation  10 most bytes that wait for a handler
--      11 entries of the ledger that are kept
-- -> changed (it was set anew or dropped meanwhile) | early (by Redis' clock) | full (too much waits there: again later) | fired
-- Invariant: each time that a timer is due becomes one job.
local TIMERS, ALARMS, BEHIND = KEYS[OWN], KEYS[OWN + 1], KEYS[OWN + 2]
local alarm = CONVERSATION_ID .. '\0' .. ARGV[2]
local record, due = redis.call('HGET', TIMERS, ARGV[2]), redis.call('ZSCORE', ALARMS, alarm)
if record ~= ARGV[3] then return 'changed' end
if not due or tonumber(due) > now_ms() then return 'early' end
if redis.call('ZCARD', PLACED) >= tonumber(ARGV[9]) or not has_room(payer_of(ARGV[5]), tonumber(ARGV[10])) then return 'full' end
count_write()
if ARGV[7] == '' then
  drop_timer(TIMERS, ALARMS, ARGV[2])
else
  put_timer(TIMERS, ALARMS, ARGV[2], ARGV[7], ARGV[8])
end
note_first('placed', ARGV[4], CONVERSATION_ID .. ' ' .. ARGV[6], ARGV[11])
join_behind(ARGV[5], BEHIND)
return 'fired'
