"""The scripts: each one change, whole or not at all.

A client library may send a command again whose reply was lost. So each script can run twice: it is keyed by an id, by a
record's version, by a log's cursor, or by `nonce`, a word of the caller's that is new in each call.

A Redis that is full refuses a script at its first write, unless that write only removes: those that delete begin so.
"""

from __future__ import annotations

_NOW = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

CREATE = (
    _NOW
    + """
local job, sequence, jobs, waiting, running, key, source, outputs, uploads = unpack(KEYS)
local id, spec, state, brief, indexes, channel, body, lasting, names, input, uploaded, backend = unpack(ARGV)
if body ~= '' then
  local earlier = redis.call('GET', key)
  if earlier then
    if string.sub(earlier, 1, #body) ~= body then return 'reused' end
    return {string.sub(earlier, #body + 2)}
  end
end
if redis.call('EXISTS', job) == 1 then return {id} end
if uploaded == '1' and tonumber(redis.call('ZSCORE', uploads, id) or 0) <= now() then return 'late' end
local kept = {}
for _, name in ipairs(cjson.decode(names)) do
  local output = redis.call('HGET', source, name)
  if not output then return 'gone' end
  table.insert(kept, name)
  table.insert(kept, output)
end
if #kept > 0 then redis.call('HSET', outputs, unpack(kept)) end
if input ~= '' then redis.call('HSET', outputs, 'input', input) end
local number = redis.call('INCR', sequence)
redis.call('HSET', job, 'spec', spec, 'state', state, 'version', 0, 'sequence', number, 'brief', brief, 'indexes', indexes)
if backend ~= '' then redis.call('HSET', job, 'backend', backend) end
for _, index in ipairs({jobs, waiting, running, unpack(cjson.decode(indexes))}) do redis.call('ZADD', index, number, id) end
if body ~= '' then redis.call('SET', key, body .. ':' .. id, 'EX', lasting) end
redis.call('ZREM', uploads, id)
redis.call('PUBLISH', channel, id)
return {id}
"""
)

SAVE = """
local job, waiting, running, ended, finished, expiring = unpack(KEYS)
local id, version, fence, nonce, state, pod, finished_at, expires_at, channel = unpack(ARGV)
local at, by, saved, doomed = unpack(redis.call('HMGET', job, 'version', 'fence', 'saved', 'doomed'))
if not at or (by or '0') ~= fence then return 0 end
if at ~= version then return saved == nonce and tonumber(at) == version + 1 and 1 or 0 end
redis.call('HSET', job, 'state', state, 'pod', pod, 'version', version + 1, 'saved', nonce)
redis.call('PUBLISH', channel, id)
if finished_at == '' then return 1 end
redis.call('HSET', job, 'ended', 1)
redis.call('ZREM', waiting, id)
if not doomed then
  redis.call('ZREM', running, id)
  redis.call('ZADD', ended, redis.call('HGET', job, 'sequence'), id)
  redis.call('ZADD', finished, finished_at, id)
  if expires_at ~= '' then redis.call('ZADD', expiring, expires_at, id) end
end
return 1
"""

# Nobody owns a job that has nothing left to be done, so whoever comes first may clean up after it once it is deleted.
RETIRE = """
local job, active = KEYS[1], KEYS[2]
local id, version, fence = unpack(ARGV)
local at, by, owner = unpack(redis.call('HMGET', job, 'version', 'fence', 'owner'))
if at ~= version or (by or '0') ~= fence then return 0 end
redis.call('ZREM', active, id)
if owner then
  redis.call('ZREM', active .. ':' .. owner, id)
  redis.call('HDEL', job, 'owner', 'engine')
end
return 1
"""

FORGET = """
local job, active, log, cursors, outputs = unpack(KEYS)
local id, fence, news = unpack(ARGV)
local at, by, owner, doomed = unpack(redis.call('HMGET', job, 'version', 'fence', 'owner', 'doomed'))
if not at then return 1 end
if not doomed or (by or '0') ~= fence then return 0 end
redis.call('UNLINK', job, log, cursors, outputs)
redis.call('ZREM', active, id)
if owner then redis.call('ZREM', active .. ':' .. owner, id) end
redis.call('PUBLISH', news, id)
return 1
"""

DOOM = """
local job, active = KEYS[1], KEYS[2]
local id, nonce, lists, wake, news = unpack(ARGV)
for _, list in ipairs(cjson.decode(lists)) do redis.call('ZREM', list, id) end
local sequence, doomed, owner, indexes = unpack(redis.call('HMGET', job, 'sequence', 'doomed', 'owner', 'indexes'))
if not sequence then return 0 end
if doomed then return doomed == nonce and 1 or 0 end
for _, index in ipairs(cjson.decode(indexes or '[]')) do redis.call('ZREM', index, id) end
redis.call('HSET', job, 'doomed', nonce)
redis.call('HINCRBY', job, 'version', 1)
redis.call('ZADD', owner and active .. ':' .. owner or active, sequence, id)
redis.call('PUBLISH', wake, id)
redis.call('PUBLISH', news, id)
return 1
"""

CANCEL = """
local job = KEYS[1]
local id, level, wake = unpack(ARGV)
local at, doomed, ended, cancelled = unpack(redis.call('HMGET', job, 'version', 'doomed', 'ended', 'cancelled'))
if not at or doomed then return 'unknown' end
if ended then return 'finished' end
if tonumber(cancelled or 0) >= tonumber(level) then return 'done' end
redis.call('HSET', job, 'cancelled', level)
redis.call('HINCRBY', job, 'version', 1)
redis.call('PUBLISH', wake, id)
return 'done'
"""

HOLD = """
local job, waiting = KEYS[1], KEYS[2]
local id, hold, wake = unpack(ARGV)
local names = {'sequence', 'doomed', 'ended', 'held', 'fence', 'backend'}
local sequence, doomed, ended, held, fence, backend = unpack(redis.call('HMGET', job, unpack(names)))
if not sequence or doomed then return 'unknown' end
if ended then return 'finished' end
if (hold == '1') == (held ~= false) then return 'done' end
if backend then waiting = waiting .. ':' .. backend end
if hold == '1' then
  redis.call('HSET', job, 'held', 1)
  redis.call('ZREM', waiting, id)
else
  redis.call('HDEL', job, 'held')
  if not fence then redis.call('ZADD', waiting, sequence, id) end
end
redis.call('HINCRBY', job, 'version', 1)
redis.call('PUBLISH', wake, id)
return 'done'
"""

# --- leases

# Uses what the script that begins with it has named: active, fences, prefix, operator, engine.
_OWN = (
    _NOW
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
    _NOW
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
    _NOW
    + """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then redis.call('ZADD', KEYS[1], 'LT', now(), ARGV[1]) end
"""
)

ALIVE = (
    _NOW
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

# --- logs and outputs

APPEND = """
local job, log, cursors = KEYS[1], KEYS[2], KEYS[3]
local id, fence, attempt, start, finish, lines, channel = unpack(ARGV)
local at, by = unpack(redis.call('HMGET', job, 'version', 'fence'))
if not at or (by or '0') ~= fence then return 0 end
local kept = redis.call('HGET', cursors, attempt) or '0:0'
if kept == finish then return 1 end
if kept ~= start then return 0 end
local first = redis.call('HINCRBY', cursors, 'lines', lines) - lines
for i = 8, #ARGV, 2 do
  redis.call('XADD', log, '0-' .. string.format('%.0f', first + 1), 'attempt', attempt, 'blocks', ARGV[i + 1])
  first = first + ARGV[i]
end
redis.call('HSET', cursors, attempt, finish)
redis.call('PUBLISH', channel, id)
return 1
"""

READ_LOG = """
local job, log, cursors = KEYS[1], KEYS[2], KEYS[3]
local index, count, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local at, doomed, ended = unpack(redis.call('HMGET', job, 'version', 'doomed', 'ended'))
if not at or doomed then return false end
ended = ended and 1 or 0
local total = tonumber(redis.call('HGET', cursors, 'lines') or 0)
if index < 0 then index = math.max(total + index, 0) end
if index >= total then return {index, ended, {}} end
local first = redis.call('XREVRANGE', log, '0-' .. string.format('%.0f', index + 1), '-', 'COUNT', 1)
local last = '0-' .. string.format('%.0f', math.min(index + limit, total))
return {index, ended, redis.call('XRANGE', log, first[1][1], last, 'COUNT', count)}
"""

KEEP_OUTPUT = """
local job, outputs = KEYS[1], KEYS[2]
local fence, step, output = unpack(ARGV)
local at, by = unpack(redis.call('HMGET', job, 'version', 'fence'))
if not at or (by or '0') ~= fence then return 0 end
redis.call('HSET', outputs, step, output)
return 1
"""

# --- uploads

LEASE = (
    _NOW
    + """
local uploads = KEYS[1]
local id, lasting, anew = unpack(ARGV)
if anew == '0' and tonumber(redis.call('ZSCORE', uploads, id) or 0) <= now() then return 0 end
redis.call('ZADD', uploads, now() + lasting, id)
return 1
"""
)

# Ids whose time is over.
OVER = (
    _NOW
    + """
return redis.call('ZRANGE', KEYS[1], '-inf', now(), 'BYSCORE', 'LIMIT', 0, ARGV[1])
"""
)

# --- lists

# KEYS: indexes that must all hold the job. Of the smallest, `most` entries from the cursor on are looked at, so that no
# call takes long; what is returned first is where to go on, or false where there is no more.
PAGE = """
local cursor, newest, limit, most, prefix = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local smallest = 1
for i = 2, #KEYS do
  if redis.call('ZCARD', KEYS[i]) < redis.call('ZCARD', KEYS[smallest]) then smallest = i end
end
local found, looked, last = {}, 0, cursor
local batch = math.min(most, math.max(limit + 1, 100))
while looked < most do
  local from, to = last == '' and '-inf' or '(' .. last, '+inf'
  if newest then from, to = last == '' and '+inf' or '(' .. last, '-inf' end
  local entries = redis.call(newest and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE', KEYS[smallest], from, to, 'WITHSCORES', 'LIMIT', 0, batch)
  for i = 1, #entries, 2 do
    local id, all = entries[i], true
    for k = 1, #KEYS do
      if k ~= smallest and not redis.call('ZSCORE', KEYS[k], id) then
        all = false
        break
      end
    end
    if all then
      if #found == limit then return {last, found} end
      local brief, state = unpack(redis.call('HMGET', prefix .. id, 'brief', 'state'))
      table.insert(found, {id, brief, state})
    end
    last = entries[i + 1]
  end
  looked = looked + #entries / 2
  if #entries < 2 * batch then return {false, found} end
end
return {last, found}
"""

OUTDATED = """
local finished = KEYS[1]
local seconds, jobs, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local found = {}
if seconds >= 0 then
  local time = redis.call('TIME')
  local before = (time[1] - seconds) * 1000000 + time[2]
  found = redis.call('ZRANGE', finished, '-inf', string.format('%.0f', before), 'BYSCORE', 'LIMIT', 0, count)
end
local over = jobs >= 0 and redis.call('ZCARD', finished) - jobs or 0
if over > #found then return redis.call('ZRANGE', finished, 0, math.min(over, count) - 1) end
return found
"""

# KEYS: the queues in which jobs wait, ARGV[2] of them, then what else is counted.
COUNTS = """
local prefix, queues = ARGV[1], tonumber(ARGV[2])
local found, waiting, first = {}, 0, nil
for i, key in ipairs(KEYS) do
  local count = redis.call('ZCARD', key)
  if i > queues then
    table.insert(found, count)
  elseif count > 0 then
    local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if not first or tonumber(head[2]) < tonumber(first[2]) then first = head end
    waiting = waiting + count
  end
end
table.insert(found, waiting)
table.insert(found, first and redis.call('HGET', prefix .. first[1], 'state') or false)
return found
"""

# A job of a version that knew no indexes, put into them.
UPGRADE = """
local job, jobs, status, finished = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, brief, indexes, finished_at = unpack(ARGV)
local sequence = redis.call('ZSCORE', jobs, id)
if not sequence or redis.call('HEXISTS', job, 'indexes') == 1 then return end
redis.call('HSET', job, 'brief', brief, 'indexes', indexes)
redis.call('ZADD', status, sequence, id)
for _, index in ipairs(cjson.decode(indexes)) do redis.call('ZADD', index, sequence, id) end
if finished_at ~= '' then
  redis.call('HSET', job, 'ended', 1)
  redis.call('ZADD', finished, finished_at, id)
end
"""
