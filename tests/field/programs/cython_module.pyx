# cython: language_level=3
"""What a compiled extension allocates: objects, PyMem blocks, the C library's; and memory that it announces to tracemalloc."""
from cpython.mem cimport PyMem_Malloc, PyMem_Free, PyMem_RawMalloc, PyMem_RawFree
from libc.stdlib cimport malloc, free

cdef extern from "Python.h":
    int PyTraceMalloc_Track(unsigned int domain, size_t pointer, size_t size)
    int PyTraceMalloc_Untrack(unsigned int domain, size_t pointer)

cdef class Block:
    cdef void *memory
    cdef int kind

    def __dealloc__(self):
        if self.kind == 0:
            PyMem_Free(self.memory)
        elif self.kind == 1:
            PyMem_RawFree(self.memory)
        else:
            if self.kind == 3:
                PyTraceMalloc_Untrack(77, <size_t>self.memory)
            free(self.memory)


def make(int kind, size_t size):
    cdef Block b = Block()
    b.kind = kind
    if kind == 0:
        b.memory = PyMem_Malloc(size)
    elif kind == 1:
        b.memory = PyMem_RawMalloc(size)
    else:
        b.memory = malloc(size)
        if kind == 3:
            PyTraceMalloc_Track(77, <size_t>b.memory, size)
    return b


def objects(list into, size_t size):
    for i in range(len(into)):
        into[i] = b'x' * size
