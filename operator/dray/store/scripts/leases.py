"""Of leases: who is alive, whose a job is, and what is being laid into the output store."""

from __future__ import annotations

from dray.store.scripts import NOW

# The beginning of each script that takes jobs: `found` is what it has taken. The same call again, by its nonce, is answered as before.
_OWN = (
    NOW
    + """
local active, fences, operators, engines, backends, replies = unpack(KEYS)
local operator, engine, prefix, nonce = unpack(ARGV)
local backend = redis.call('HGET', backends, operator)

local function own(id, sequence, from)
  redis.call('ZREM', from, id)
  if redis.call('EXISTS', prefix .. id) == 0 then return nil end
  redis.call('ZADD', active .. ':' .. operator, sequence, id)
  redis.call('HSET', prefix .. id, 'owner', operator, 'engine', engine, 'fence', redis.call('INCR', fences))
  redis.call('HINCRBY', prefix .. id, 'version', 1)
  return id
end

local before = redis.call('HGET', replies, operator)
if before then
  before = cjson.decode(before)
  if before[1] == nonce then return before[2] end
end
if tonumber(redis.call('ZSCORE', operators, operator) or 0) <= now() then return {} end
local found = {}
"""
)

_REPLY = """
if #found > 0 then redis.call('HSET', replies, operator, cjson.encode({nonce, found})) end
return found
"""

# The head of two queues: for any backend, and for this operator's.
BEGIN = (
    _OWN
    + """
local waiting = KEYS[7]
local queues = {waiting}
if backend then table.insert(queues, waiting .. ':' .. backend) end
while #found == 0 do
  local queue, first
  for _, one in ipairs(queues) do
    local head = redis.call('ZRANGE', one, 0, 0, 'WITHSCORES')
    if head[1] and (not first or tonumber(head[2]) < tonumber(first[2])) then queue, first = one, head end
  end
  if not first then break end
  table.insert(found, own(first[1], first[2], queue))
end
"""
    + _REPLY
)

# Of the jobs nobody owns, whatever backend they name: nothing of them is on an engine, for they are deleted after their end,
# or before they began, or they are an earlier version's, which name none. Then those of operators whose lease is over.
ADOPT = (
    _OWN
    + """
local takeover, count, forgotten = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local function fits(id)
  local wanted = redis.call('HGET', prefix .. id, 'backend')
  return not wanted or wanted == backend
end

local function take(from)
  local left = 0
  while #found < count do
    local ids = redis.call('ZRANGE', from, left, left + count - #found - 1, 'WITHSCORES')
    if #ids == 0 then break end
    for i = 1, #ids, 2 do
      if from == active or fits(ids[i]) then
        table.insert(found, own(ids[i], ids[i + 1], from))
      else
        left = left + 1
      end
    end
  end
end

take(active)
local gone = redis.call('ZRANGE', operators, '-inf', now(), 'BYSCORE', 'WITHSCORES')
for i = 1, #gone, 2 do
  local theirs, since = active .. ':' .. gone[i], now() - gone[i + 1]
  if redis.call('EXISTS', theirs) == 0 then
    if since > forgotten then
      redis.call('ZREM', operators, gone[i])
      redis.call('HDEL', engines, gone[i])
      redis.call('HDEL', backends, gone[i])
      redis.call('HDEL', KEYS[7], gone[i])
      redis.call('HDEL', replies, gone[i])
    end
  elseif #found < count and (redis.call('HGET', engines, gone[i]) == engine or (takeover > 0 and since > takeover)) then
    take(theirs)
  end
end
"""
    + _REPLY
)

ADOPT_ONE = (
    _OWN
    + """
local id = ARGV[5]
if redis.call('ZSCORE', active .. ':' .. operator, id) then return {id} end
local sequence = redis.call('ZSCORE', active, id)
if sequence then table.insert(found, own(id, sequence, active)) end
return found
"""
)

ENLIST = (
    NOW
    + """
local operators, engines, backends = unpack(KEYS)
local operator, engine, backend, lease = unpack(ARGV)
local expires = redis.call('ZSCORE', operators, operator)
redis.call('ZADD', operators, now() + lease, operator)
redis.call('HSET', engines, operator, engine)
redis.call('HSET', backends, operator, backend)
return (not expires or tonumber(expires) > now()) and 1 or 0
"""
)

DISMISS = (
    NOW
    + """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then redis.call('ZADD', KEYS[1], 'LT', now(), ARGV[1]) end
"""
)

ALIVE = (
    NOW
    + """
local operators, backends, backend = KEYS[1], KEYS[2], ARGV[1]
local found = {}
for _, operator in ipairs(redis.call('ZRANGE', operators, '(' .. now(), '+inf', 'BYSCORE')) do
  if backend == '' or redis.call('HGET', backends, operator) == backend then table.insert(found, operator) end
end
return found
"""
)

ACTIVE = """
local active, engines = KEYS[1], KEYS[2]
local engine, prefix = ARGV[1], ARGV[2]
local found = {}

local function add(from)
  for _, id in ipairs(redis.call('ZRANGE', from, 0, -1)) do
    local pod, state = unpack(redis.call('HMGET', prefix .. id, 'pod', 'state'))
    if not pod and state then pod = cjson.decode(state).pod end
    table.insert(found, {id, type(pod) == 'string' and pod or ''})
  end
end

add(active)
local known = redis.call('HGETALL', engines)
for i = 1, #known, 2 do
  if known[i + 1] == engine then add(active .. ':' .. known[i]) end
end
return found
"""

LEASE = (
    NOW
    + """
local uploads = KEYS[1]
local id, lasting, anew = unpack(ARGV)
if anew == '0' and tonumber(redis.call('ZSCORE', uploads, id) or 0) <= now() then return 0 end
redis.call('ZADD', uploads, now() + lasting, id)
return 1
"""
)
