-- Writes partials of documents and returns all partials of these documents, in one atomic step.
--
-- KEYS: for each document, the key of its partials: a hash of buckets.
-- ARGV: 1 version, 2 epoch, 3 seconds to keep the partials of a document whose root is deleted, 4 the bucket of the
--   root partial, 5 the new etag. Then for each document: the etag that the caller knows ('' = none), the number of its
--   partials, and bucket and body of each ('' = delete).
-- Returns for each document the fields and values of its hash, or the text "!EPOCH" if a later epoch wrote it. If the
--   caller knows the hash, it returns the number of partials that were written, and the number of fields.
--
-- A value is the version as a text of 20 digits, followed by the body. Text order is number order: Lua's numbers cannot
-- hold integers above 2^53. The field `epoch` tells which epoch the partials belong to. Those of an earlier epoch were
-- rendered from another declaration, so they are dropped.
--
-- The field `etag` identifies the content of the hash: each call that may change the hash gives it a new one. The etag
-- changes before the partials. Otherwise a script that fails halfway would leave an old etag for a new content.
local version, epoch, dead, root, etag = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local out, at = {}, 6
for k, key in ipairs(KEYS) do
  local known, n, written = ARGV[at], tonumber(ARGV[at + 1]), 0
  local found = redis.call('HGET', key, 'epoch')
  if found and found > epoch then
    out[k] = '!' .. found
  else
    if found ~= epoch then
      redis.call('DEL', key)
      redis.call('HSET', key, 'epoch', epoch)
    end
    known = known ~= '' and redis.call('HGET', key, 'etag') == known
    redis.call('HSET', key, 'etag', etag)
    for i = at + 2, at + 1 + 2 * n, 2 do
      local current = redis.call('HGET', key, ARGV[i])
      if not current or string.sub(current, 1, 20) < version then
        redis.call('HSET', key, ARGV[i], version .. ARGV[i + 1])
        written = written + 1
      end
    end
    local of_root = redis.call('HGET', key, root)
    if of_root and #of_root == 20 then redis.call('EXPIRE', key, dead) else redis.call('PERSIST', key) end
    out[k] = known and {written, redis.call('HLEN', key)} or redis.call('HGETALL', key)
  end
  at = at + 2 + 2 * n
end
return out
