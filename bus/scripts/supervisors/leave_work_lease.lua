-- A work lease is given up, unless another holds it.
-- KEYS 1 work lease
-- ARGV 1 consumer
-- -> 1 was mine | 0 another's or nobody's
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
