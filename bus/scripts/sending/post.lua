-- Queues a reply of our own that belongs to no job (a session.ping) in the out-box.
-- KEYS board
-- ARGV 1 conversation_id  2 reply record
count_write()
if is_idle() then begin_work() end
say(ARGV[2])
return 'queued'
