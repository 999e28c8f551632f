"""Of lists: their pages, what is to be removed from them, how many there are of each kind."""

from __future__ import annotations

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
