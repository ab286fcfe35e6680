-- Something of our own is to be sent, beside any job (a session.ping): into the out-box.
-- KEYS 1 conversation  2 out-box  3 replies  4 gen
-- ARGV 1 reply record
redis.call('INCR', KEYS[4])
redis.call('RPUSH', KEYS[2], ARGV[1])
start_next_reply(KEYS[3], KEYS[1], KEYS[2])
return 'queued'
