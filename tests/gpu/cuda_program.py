"""A program that uses a GPU, by the driver's own interface: nothing but the driver is needed.

python -m tests.gpu.cuda_program hold BYTES     holds memory until its input ends
python -m tests.gpu.cuda_program fault          writes where it must not, as a bad kernel does
"""

import ctypes
import sys

_FAULT = b"""\
.version 6.0
.target sm_50
.address_size 64
.visible .entry fault()
{
    .reg .b32 %value;
    .reg .b64 %address;
    mov.b64 %address, 16;
    mov.b32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
"""


class Cuda:
    """The driver, with a context on the first GPU it shows."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        device, self.context = ctypes.c_int(), ctypes.c_void_p()
        self.do("cuInit", ctypes.c_uint(0))
        self.do("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        # Of version 2, as all functions with a size or a context.
        self.do("cuCtxCreate_v2", ctypes.byref(self.context), ctypes.c_uint(0), device)

    def do(self, name: str, *arguments: object) -> None:
        """Calls a function; raises what it returns if that is an error."""
        code = getattr(self.library, name)(*arguments)
        if code:
            raise OSError(f"{name}: CUDA error {code}")

    def hold(self, size_bytes: int) -> None:
        """Takes memory."""
        pointer = ctypes.c_uint64()
        self.do("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes))

    def fault(self) -> None:
        """Runs the bad kernel; raises as its context is lost."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.do("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(_FAULT))
        self.do("cuModuleGetFunction", ctypes.byref(function), module, b"fault")
        one, none = ctypes.c_uint(1), ctypes.c_void_p()
        shape = (one, one, one, one, one, one, ctypes.c_uint(0))
        self.do("cuLaunchKernel", function, *shape, none, none, none)
        self.do("cuCtxSynchronize")


def main() -> None:
    """Does what its arguments say."""
    cuda = Cuda()
    if sys.argv[1] == "fault":
        cuda.fault()
    cuda.hold(int(sys.argv[2]))
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
