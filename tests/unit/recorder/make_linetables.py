# Prints the samples of linetable_samples.h for the interpreter that runs it.
import ctypes, sys
src='''
def outer(a,
          b=2):
    x = [i
         for i in range(a)
         if i % 2]
    try:
        y = (a +
             b *
             len(x))
    except ValueError as e:
        raise RuntimeError(
            "x") from e
    finally:
        del x
    for k in range(3):
        if k: continue
        y += k



    with open(a) as f: y = f



















































































































































    return (lambda:
            y)
'''
ns={}
c=compile(src,"s.py","exec")
f=[k for k in c.co_consts if hasattr(k,"co_code")][0]
A=ctypes.pythonapi.PyCode_Addr2Line; A.argtypes=[ctypes.py_object,ctypes.c_int]; A.restype=ctypes.c_int
v=sys.version_info
tab=f.co_linetable if v>=(3,10) else f.co_lnotab
fmt=0 if v<(3,10) else 1 if v<(3,11) else 2
n=len(f.co_code)
lines=[A(f,o) for o in range(0,n,2)]
lines=[max(l,0) for l in lines]
print("static const uint8_t table_%d%d[] = {%s};"%(v[0],v[1],", ".join(map(str,tab))))
print("static const uint16_t lines_%d%d[] = {%s};"%(v[0],v[1],", ".join(map(str,lines))))
