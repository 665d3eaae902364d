-- Records index patterns, if `syncer:indexes` has not changed since the caller read and checked it.
--
-- KEYS: `syncer:indexes`. ARGV: the number of fields that the caller read, these fields with their values, then the
-- fields with values to write. Returns 1 if they were written.

local n = tonumber(ARGV[1])
if redis.call('HLEN', KEYS[1]) ~= n then return 0 end
for at = 2, 2 * n, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) ~= ARGV[at + 1] then return 0 end
end
for at = 2 * n + 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
return 1
