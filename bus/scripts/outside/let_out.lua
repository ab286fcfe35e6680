-- Gives the first message of the line its turn: moves it into its conversation's out-box, unless another one has the turn.
-- KEYS board, line, turn
-- ARGV 1 conversation_id  2 reply record  3 its id (the record's job)  4 how long a turn lasts at most (ms)
-- -> taken (another one has the turn) | changed (another one is first) | let_out
-- Invariant: of all messages of the line at most one is in an out-box and not committed yet. First write is LPOP, so that a full Redis drains
-- (rule 16).
local LINE, TURN = KEYS[OWN], KEYS[OWN + 1]
if redis.call('EXISTS', TURN) == 1 then return 'taken' end
if redis.call('LINDEX', LINE, '0') ~= ARGV[2] then return 'changed' end
redis.call('LPOP', LINE)
count_write()
take_off_all('outside', size_of(ARGV[2]))
redis.call('SET', TURN, ARGV[3], 'PX', ARGV[4])
note('let_out', ARGV[3])
if is_idle() then begin_work() end
say(ARGV[2])
return 'let_out'
