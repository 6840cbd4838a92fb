"""Collections that begin at the recursion limit: a callback that counts as a level fails there, and 3.8 aborts."""
import gc, sys
gc.set_threshold(1, 10**6, 10**6)
class C: pass
class D:
    def __repr__(self):
        l = [[], C()]
        return g()
def g(): 
    l = [[], C(), {}]
    return repr(D())
def h(x):
    l = [[], C(), {}]
    return sorted([1], key=h)
def f(n):
    l = [[], [], C()]
    return f(n + 1)
def shift(k, fn, a):
    if k: return shift(k - 1, fn, a)
    return fn(*a)
for k in range(6):
    for fn, a in ((f, (0,)), (g, ()), (h, (1,)), (lambda: list(map(f, [1])), ()), (lambda: dict(map(h, [1])), ())):
        try: shift(k, fn, a)
        except RecursionError: pass
print("ok")
