-- Replaces the watermark at a key if the new one has a higher version, in one atomic step.
--
-- KEYS: the key of the watermark, a hash. ARGV: 1 version, then fields and values in turn.
-- Returns 1 if it was written, 0 if the key has the same or a newer watermark.
--
-- Versions are zero-padded texts of 20 digits, as in write.lua.

local current = redis.call('HGET', KEYS[1], 'version')
if current and current >= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])  -- a field that is not known any more has to disappear
redis.call('HSET', KEYS[1], 'version', ARGV[1], unpack(ARGV, 2))
return 1
