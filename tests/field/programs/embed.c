/* An interpreter that is begun and ended several times in one process, used from a thread, and a block that crosses the ends. */
#include <Python.h>
#include <pthread.h>
#include <stdio.h>

static const char code[] = "import json, threading\n"
                           "def make(n): return [json.dumps([i] * 5) for i in range(n)]\n"
                           "kept = make(1000)\n"
                           "t = threading.Thread(target=make, args=(500,)); t.start(); t.join()\n"
                           "for i in range(200):\n"
                           "  space = {}\n"
                           "  exec('def f():\\n  return [%d, {}]' % i, space)\n"
                           "  space['f']()\n";

static void *thread(void *unused) {
  PyGILState_STATE state = PyGILState_Ensure();
  PyRun_SimpleString("x = make(300)");
  PyGILState_Release(state);
  return unused;
}

int main(void) {
  void *across = NULL;
  for (int i = 0; i < 5; i++) {
    Py_InitializeEx(0);
    if (PyRun_SimpleString(code)) return 1;
    PyMem_RawFree(across);
    across = PyMem_RawMalloc(1000);
    PyThreadState *saved = PyEval_SaveThread();
    pthread_t t;
    if (pthread_create(&t, NULL, thread, NULL)) return 2;
    pthread_join(t, NULL);
    PyEval_RestoreThread(saved);
    if (Py_FinalizeEx() < 0) return 3;
    printf("round %d\n", i);
    fflush(stdout);
  }
  PyMem_RawFree(across);
  return 0;
}
