-- Adds a place to the pointer of an id, if the id has a member there and the pointer does not list it.
--
-- KEYS: the key of the version, the key of the place. ARGV: 1 owner, 2 TYPE of the place, 3 member.
-- Returns 1 if the place was added, and 0 if the pointer is damaged (`write.lua`). Applications do not see the change. The next write of the id, or its delete,
-- removes the member if it must not be there.

local text, owner = redis.pcall('GET', KEYS[1]), ' ' .. ARGV[1]
local head, pointer, places = string.rep('0', 20) .. owner .. ' deleted', '', {}
if type(text) == 'string' then
  head, pointer = string.match(text, '^([^\n]*)\n?(.*)$')
  local rest = string.match(head, '^%d+(.*)$')
  if rest ~= owner and rest ~= owner .. ' deleted' then return 0 end
elseif text then return 0 end
if ARGV[2] == 'zset' then
  if not redis.call('ZSCORE', KEYS[2], ARGV[3]) then return 0 end
elseif redis.call('SISMEMBER', KEYS[2], ARGV[3]) == 0 then return 0 end
if pointer ~= '' then
  local valid, found = pcall(cjson.decode, pointer)
  if not valid or type(found) ~= 'table' then return 0 end
  places = found
end
for _, place in pairs(places) do
  if type(place) ~= 'table' then return 0 end
  if place[1] == ARGV[2] and place[2] == KEYS[2] and place[3] == ARGV[3] then return 0 end
end
places[#places + 1] = {ARGV[2], KEYS[2], ARGV[3], 'stray'}
redis.call('SET', KEYS[1], head .. '\n' .. cjson.encode(places))  -- without expiry, as long as it lists a place
return 1
