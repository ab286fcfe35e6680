-- Ends a reply that was no message but an act of ours (a recall, a reaction), once the relay has heard it: there is nothing to confirm.
-- KEYS board
-- ARGV 1 conversation_id  2 entry  3 consumer  4 job_id  5 place  6 what was done, for the ledger
-- -> done_before | done
if redis.call('HGET', CONVERSATION, 'reply') ~= ARGV[2] then return 'done_before' end
if not lease_is_mine(REPLIES, REPLIES_GROUP, ARGV[2], ARGV[3]) then return 'done_before' end
settle(REPLIES, REPLIES_GROUP, ARGV[2])
redis.call('LTRIM', OUT_BOX, '1', '-1')
count_write()
note('acted', ARGV[4], ARGV[5] .. ' ' .. ARGV[6])
end_reply(redis.call('HGET', CONVERSATION, 'entry'))
return 'done'
