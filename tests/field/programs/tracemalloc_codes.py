"""Thousands of new code objects whose tuples come from free lists while tracemalloc runs: it then allocates under its own lock, below every hook."""
import tracemalloc, sys
tracemalloc.start(3)
ns={}
for i in range(3000):
    exec("def f%d(a):\n  t=(a,)\n  u=(a,a)\n  l=[t,u]\n  return dict(x=t), l, 1.5*a, a+%d" % (i,i), ns)
    r=ns['f%d'%i](i)
    del r
print(len(ns))
s=tracemalloc.take_snapshot().statistics('lineno')
print(s[0])
