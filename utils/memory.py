"""Memory that ran out, told apart from other faults whoever found it."""

import errno

# What libraries say in a plain RuntimeError: torch on processors and GPUs, oneDNN where it cannot lay out its buffers.
_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "could not create a primitive",
    "could not create a memory",
    "can't start new thread",  # of which each wants its own stack
)
# Begins like one of these, but says that the library has no such operation.
_OTHERWISE = ("could not create a primitive descriptor",)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy, OpenCV or torch means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error)
    if type(error).__module__.partition(".")[0] == "cv2":
        return "Insufficient memory" in text
    is_said = isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
    return is_said and not any(words in text for words in _OTHERWISE)
