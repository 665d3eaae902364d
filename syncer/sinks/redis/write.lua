-- Compares versions and writes, for each document, in one atomic step: the document, its members of sorted sets and
-- sets (its places), and its version.
--
-- KEYS: for each document its key, the key of its version, and the keys of its places.
-- ARGV: 1 seconds until the document expires (0: never), 2 seconds until its version key expires, 3 seconds for which a
--   delete is remembered, 4 TYPE of a document, 5 owner. Then for each document: its version, the number of its values
--   (-1: delete), and the values. A string has one value, a hash has fields and values in turn.
--   Then the number of its places, and TYPE, member and score of each ('' in a set).
-- Returns one text per document: "w" written, "d" deleted, "!…" the key belongs to somebody else, "?…" the pointer in
--   this key is damaged, otherwise the version that the key has. Returns fewer texts if the documents have many
--   places: the caller sends the rest again, so that the server can serve other clients in between.
--
-- Versions are zero-padded texts of 20 digits, so text order is number order. Lua's numbers cannot hold integers
-- above 2^53.
--
-- record.py describes the text of a version key. Its owner stands for the key pattern (Keys.owner in keys.py).
-- Patterns can overlap, as p:{id} and p:{id}:summary do, and the application has keys of its own. The script never
-- removes a key whose version key names no document of this owner.
--
-- The text has a pointer: all places where the id may have a member, also those of an earlier declaration. The pointer
-- must never miss a place, or the member stays there when the row moves on. Redis does not undo a script that fails.
-- So the pointer grows first, members are added and removed next, and the pointer shrinks last, with the new version.
-- If the script fails in between, the old version stays, and the next attempt does everything again.
--
-- Places that the pointer lists are not in KEYS. On a cluster they are in the slot of the version key, because
-- `places.py` writes only such places.

local expire, keep, tombstone = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local kind, owner = ARGV[4], ' ' .. ARGV[5]
local MAX_PLACES = 20000  -- after which the script ends; a document has up to 1000, and may leave as many
local REMOVE = {zset = 'ZREM', set = 'SREM'}
local out, k, at, places = {}, 1, 6, 0

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

local function name(place)
  return place[1] .. #place[2] .. ':' .. place[2] .. place[3]
end

local function text_of(head, places)
  if #places == 0 then return head end
  return head .. '\n' .. cjson.encode(places)
end

-- Returns the places in a pointer. Returns nil if it is damaged: nobody knows where the id has members.
local function places_in(pointer)
  if not pointer or pointer == '' then return {} end
  local valid, places = pcall(cjson.decode, pointer)
  if not valid or type(places) ~= 'table' then return nil end
  for _, place in pairs(places) do
    if type(place) ~= 'table' or not REMOVE[place[1]] then return nil end
    if type(place[2]) ~= 'string' or type(place[3]) ~= 'string' then return nil end
  end
  return places
end

local function remove(place)
  local answer = redis.pcall(REMOVE[place[1]], place[2], place[3])
  local failed = type(answer) == 'table' and answer.err
  -- With another type, the key belongs to somebody else and has no member of the document.
  if failed and not string.find(failed, '^WRONGTYPE') then error(failed) end
end

-- Moves the members from the places of `old` to those of `new`. head: for the text of the version key meanwhile.
local function move(mark, head, old, new)
  local listed, wanted, all = {}, {}, {}
  for i, place in ipairs(old) do
    listed[name(place)] = true
    all[i] = place
  end
  for _, place in ipairs(new) do
    wanted[name(place)] = true
    if not listed[name(place)] then all[#all + 1] = {place[1], place[2], place[3]} end
  end
  if #all > #old then redis.call('SET', mark, text_of(head, all)) end
  for _, place in ipairs(new) do
    if place[1] == 'zset' then redis.call('ZADD', place[2], place[4], place[3])
    else redis.call('SADD', place[2], place[3]) end
  end
  for _, place in ipairs(old) do
    if not wanted[name(place)] then remove(place) end
  end
end

local function foreign_type(key, wanted)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= wanted then return key .. ' (a ' .. found .. ')' end
end

while k <= #KEYS and places < MAX_PLACES do
  local key, mark, version, n = KEYS[k], KEYS[k + 1], ARGV[at], tonumber(ARGV[at + 1])
  local first, last = at + 2, at + 1 + math.max(n, 0)
  local new, count = {}, tonumber(ARGV[last + 1])
  k, at = k + 2, last + 2
  for i = 1, count do
    new[i] = {ARGV[at], KEYS[k], ARGV[at + 1], ARGV[at + 2]}
    k, at = k + 1, at + 3
  end
  local text, current, rest, pointer, foreign = redis.pcall('GET', mark), nil, nil, nil, nil
  if type(text) == 'string' then current, rest, pointer = string.match(text, '^(%d+)([^\n]*)\n?(.*)$') end
  local is_document = rest == owner
  if text and not is_document and rest ~= owner .. ' deleted' then
    foreign = mark
  elseif n >= 0 then
    if not is_document then foreign = foreign_type(key, kind) end
    for _, place in ipairs(new) do foreign = foreign or foreign_type(place[2], place[1]) end
  end
  local old = places_in(pointer)
  places = places + #new + (old and #old or 0)
  if foreign then out[#out + 1] = '!' .. foreign
  elseif not old then out[#out + 1] = '?' .. mark
  elseif current and current >= version then out[#out + 1] = current
  elseif n < 0 then
    move(mark, nil, old, new)
    if is_document then redis.call('DEL', key) end
    redis.call('SET', mark, version .. owner .. ' deleted', 'EX', tombstone)
    out[#out + 1] = 'd'
  else
    move(mark, (current or string.rep('0', 20)) .. owner, old, new)
    -- The document is written before its version. If the second command fails, the next attempt writes both again.
    write(key, first, last)
    for i, place in ipairs(new) do new[i] = {place[1], place[2], place[3]} end
    text = text_of(version .. owner, new)
    -- A pointer does not expire: the members that it lists do not either.
    if keep > 0 and #new == 0 then redis.call('SET', mark, text, 'EX', keep) else redis.call('SET', mark, text) end
    out[#out + 1] = 'w'
  end
end
return out
