# Other threads' turn in the middle of a long loop: a stream shares its interpreter with the chunks
# of a snapshot, whose loops over ten thousand rows would each keep it for tens of milliseconds.
cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    PyThreadState *PyEval_SaveThread()
    void PyEval_RestoreThread(PyThreadState *)


cdef enum:
    ROWS_PER_BREATH = 128  # some 0.1 ms of work; a breath that nobody waits for takes 0.1 us


cdef inline void breathe(Py_ssize_t row) noexcept:
    """To be called before each row, while nothing is half done that another thread may touch."""
    cdef PyThreadState *ours
    if row % ROWS_PER_BREATH == 0:
        ours = PyEval_SaveThread()
        PyEval_RestoreThread(ours)
