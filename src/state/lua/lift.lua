-- Bans were lifted. ARGV[4] what to tell; ARGV[5] whose, ARGV[6] by which jail, ARGV[7] for which site; `*` is any.
local change, who, jail, site = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local mark = '*'
if who == '*' then
  redis.call('DEL', bans, ends)
else
  mark = who .. '\t' .. jail .. '\t' .. site
  local rest = {}
  for _, old in ipairs(held(who)) do
    if (jail ~= '*' and old.f[2] ~= jail) or (site ~= '*' and old.f[3] ~= site) then rest[#rest + 1] = old end
  end
  keep(who, rest)
end
-- A replica that was cut off must not bring them back.
redis.call('ZREMRANGEBYSCORE', lifted, '-inf', number(now - MEMORY))
redis.call('ZADD', lifted, number(now), mark)
redis.call('ZREMRANGEBYRANK', lifted, 0, -100001)
redis.call('PEXPIRE', lifted, number(MEMORY))
tell(origin, change)
return ''
