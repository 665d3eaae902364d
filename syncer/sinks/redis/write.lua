-- Compares versions and writes, for each document, in one atomic step.
--
-- KEYS: the key of a document and the key of its version, in turn.
-- ARGV: 1 version, 2 seconds until the document expires (0: never), 3 seconds until its version key expires,
--   4 seconds for which a delete is remembered, 5 TYPE of a document, 6 owner. Then for each document: the number
--   of its values (-1: delete), and the values. A string has one value, a hash has fields and values in turn.
-- Returns one text per document: "w" written, "d" deleted, "!…" the key belongs to somebody else, otherwise the
--   version that the key has.
--
-- Versions are zero-padded texts of 20 digits, so text order is number order. Lua's numbers cannot hold integers
-- above 2^53.
--
-- A version key holds "VERSION OWNER" for a document and "VERSION OWNER deleted" for a delete. The owner stands for
-- the key pattern (Keys.owner in keys.py). Patterns can overlap, as p:{id} and p:{id}:summary do, and the
-- application has keys of its own. The script never removes a key whose version key names no document of this owner.

local version, expire, keep = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local tombstone, kind, owner = ARGV[4], ARGV[5], ' ' .. ARGV[6]
local live, deleted = version .. owner, version .. owner .. ' deleted'
local out, at = {}, 7

local function write(key, first, last)
  if kind == 'string' then
    if expire > 0 then redis.call('SET', key, ARGV[first], 'EX', expire)
    else redis.call('SET', key, ARGV[first]) end
    return
  end
  redis.call('DEL', key)
  for from = first, last, 4000 do  -- unpack() is limited by the size of Lua's stack
    redis.call('HSET', key, unpack(ARGV, from, math.min(from + 3999, last)))
  end
  if expire > 0 then redis.call('EXPIRE', key, expire) end
end

for i = 1, #KEYS, 2 do
  local key, mark, n = KEYS[i], KEYS[i + 1], tonumber(ARGV[at])
  local first, last = at + 1, at + math.max(n, 0)
  at = last + 1
  local text, current, rest, foreign = redis.pcall('GET', mark), nil, nil, nil
  if type(text) == 'string' then current, rest = string.match(text, '^(%d+)(.*)$') end
  local is_document = rest == owner
  if text and not is_document and rest ~= owner .. ' deleted' then
    foreign = mark
  elseif not is_document and n >= 0 then
    local found = redis.call('TYPE', key).ok
    if found ~= 'none' and found ~= kind then foreign = key .. ' (a ' .. found .. ')' end
  end
  if foreign then out[#out + 1] = '!' .. foreign
  elseif current and current >= version then out[#out + 1] = current
  elseif n < 0 then
    if is_document then redis.call('DEL', key) end
    redis.call('SET', mark, deleted, 'EX', tombstone)
    out[#out + 1] = 'd'
  else
    -- The document is written before its version. If the second command fails, the next attempt writes both again.
    write(key, first, last)
    if keep > 0 then redis.call('SET', mark, live, 'EX', keep) else redis.call('SET', mark, live) end
    out[#out + 1] = 'w'
  end
end
return out
