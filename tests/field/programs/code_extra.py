"""Another user of the code objects' extra slots: its free function must be called for its own entries only."""
import ctypes

api = ctypes.pythonapi
name = "_PyEval_RequestCodeExtraIndex" if hasattr(api, "_PyEval_RequestCodeExtraIndex") else "PyUnstable_Eval_RequestCodeExtraIndex"
setter = "_PyCode_SetExtra" if hasattr(api, "_PyCode_SetExtra") else "PyUnstable_Code_SetExtra"
FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
calls = []
free = FREE(lambda p: calls.append(p))
request = getattr(api, name)
request.argtypes, request.restype = (FREE,), ctypes.c_ssize_t
set_extra = getattr(api, setter)
set_extra.argtypes, set_extra.restype = (ctypes.py_object, ctypes.c_ssize_t, ctypes.c_void_p), ctypes.c_int
index = request(free)
for i in range(100):
    space = {}
    exec("def f():\n  return [1, 2, %d]" % i, space)
    space["f"]()
    if i % 10 == 0:
        set_extra(space["f"].__code__, index, 1000 + i)
    space["f"]()
    del space
import gc  # noqa: E402

gc.collect()
print(calls)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(free))
import os, sys  # noqa: E402
sys.stdout.flush()
os._exit(0)  # what is freed later calls into a dying interpreter: that is this program's own affair
