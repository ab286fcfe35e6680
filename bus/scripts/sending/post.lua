-- Something of our own is to be sent, beside any job (a session.ping): into the out-box.
-- KEYS board
-- ARGV 1 conversation_id  2 reply record
count_write()
if is_idle() then begin_work() end
say(ARGV[2])
return 'queued'
