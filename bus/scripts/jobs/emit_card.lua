-- Queues a card of a running job, or an update of one, as `emit` does a reply, and counts the card's revision.
-- KEYS board, cards
-- ARGV 1 conversation_id  2 entry (fencing token)  3 consumer  4 place  5 reply record  6 job_id  7 card id
--      8 what a new card is (its subtype, and the renderer of an app), '' for an update  9 the revision that the update is based on
--      10 id of the job's thread, under which the card is sent
-- -> fenced | already, the card id at this place | unknown (no card of this conversation) | spent (it had all its updates)
--    | moved, the card's revision (the update has to be based on it) | full (as in `emit`) | queued
-- Invariant: the updates of a card go out with 0, 1, 2, … as the revision that they are based on, each once.
local CARDS = KEYS[OWN]
local MOST_UPDATES = 100 -- PROTOCOL §1
if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then return { 'fenced' } end
local emitted = redis.call('HGET', EMITTED, ARGV[4])
if emitted then return { 'already', emitted } end
local card = redis.call('HGET', CARDS, ARGV[7])
if ARGV[8] == '' then
  if not card then return { 'unknown' } end
  local revision, rest = string.match(card, '^(%d+)(.*)$')
  if revision ~= ARGV[9] then return { 'moved', tonumber(revision) } end
  if tonumber(revision) >= MOST_UPDATES then return { 'spent' } end
  card = string.format('%d', revision + 1) .. rest
end
local has_reply = redis.call('HEXISTS', CONVERSATION, 'reply') == 1
if has_reply and not may_say() then return { 'full' } end
count_write()
redis.call('HSET', EMITTED, ARGV[4], ARGV[7])
keep_card(CARDS, ARGV[7], card or new_card(ARGV[10], ARGV[4], ARGV[8])) -- a store that was restored may know it
note('replied', ARGV[6], ARGV[4])
say(ARGV[5], has_reply)
return { 'queued' }
