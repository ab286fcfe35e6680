-- Flags a card of the running job as stopped, for whoever runs it, when the one whom the job is for has pressed its Stop button.
-- KEYS board
-- ARGV 1 conversation_id  2 card id  3 who has pressed it
-- -> other (no card of the running job, or not theirs to stop: an answer like any other) | stopped
local entry, retry = unpack(redis.call('HMGET', CONVERSATION, 'entry', 'retry'))
if not entry then return 'other' end
local job = entry == 'due' and retry or (fields_of(JOBS, entry) or {}).r
if not job or part_of(job, 8) ~= ARGV[3] then return 'other' end
for _, card in ipairs(redis.call('HVALS', EMITTED)) do
  if card == ARGV[2] then
    count_write()
    redis.call('HSET', CONVERSATION, 'stop', ARGV[2])
    return 'stopped'
  end
end
return 'other'
