-- Writes partials of documents and returns all partials of these documents, in one atomic step.
--
-- KEYS: for each document, the key of its partials: a hash of buckets.
-- ARGV: 1 version, 2 epoch, 3 seconds to keep the partials of a document whose root is deleted, 4 the bucket of the
--   root partial. Then for each document: the number of its partials, and bucket and body of each ('' = delete).
-- Returns for each document the fields and values of its hash, or the text "!EPOCH" if a later epoch wrote it.
--
-- A value is the version as a text of 20 digits, followed by the body. Text order is number order: Lua's numbers cannot
-- hold integers above 2^53. The field `epoch` tells which epoch the partials belong to. Those of an earlier epoch were
-- rendered from another declaration, so they are dropped.
local version, epoch, dead, root = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local out, at = {}, 5
for k, key in ipairs(KEYS) do
  local n = tonumber(ARGV[at])
  local found = redis.call('HGET', key, 'epoch')
  if found and found > epoch then
    out[k] = '!' .. found
  else
    if found ~= epoch then
      redis.call('DEL', key)
      redis.call('HSET', key, 'epoch', epoch)
    end
    for i = at + 1, at + 2 * n, 2 do
      local current = redis.call('HGET', key, ARGV[i])
      if not current or string.sub(current, 1, 20) < version then
        redis.call('HSET', key, ARGV[i], version .. ARGV[i + 1])
      end
    end
    local of_root = redis.call('HGET', key, root)
    if of_root and #of_root == 20 then redis.call('EXPIRE', key, dead) else redis.call('PERSIST', key) end
    out[k] = redis.call('HGETALL', key)
  end
  at = at + 1 + 2 * n
end
return out
