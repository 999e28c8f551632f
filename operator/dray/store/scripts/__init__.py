"""The scripts: each one change, whole or not at all.

A client library may send a command again whose reply was lost. So each script can run twice: it is keyed by an id, by a
record's version, by a log's cursor, or by `nonce`, a word of the caller's that is new in each call.

A Redis that is full refuses a script at its first write, unless that write only removes: those that delete begin so.
"""

from __future__ import annotations

NOW = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

# Ids whose time is over.
OVER = (
    NOW
    + """
return redis.call('ZRANGE', KEYS[1], '-inf', now(), 'BYSCORE', 'LIMIT', 0, ARGV[1])
"""
)
