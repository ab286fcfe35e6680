"""Becomes a program to which the kernel refuses pidfds: `python without_pidfd.py ERRNO PROGRAM ARGUMENT…`, by a seccomp filter."""

import ctypes
import os
import struct
import sys

PIDFD_SEND_SIGNAL, PIDFD_OPEN = 424, 434  # the same on every architecture
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
RETURN_ERRNO, RETURN_ALLOW = 0x00050000, 0x7FFF0000


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def refuse_pidfds(number: int) -> None:
    steps = (
        (LOAD, 0, 0, 0),
        (IF_EQUAL, 2, 0, PIDFD_OPEN),
        (IF_EQUAL, 1, 0, PIDFD_SEND_SIGNAL),
        (RETURN, 0, 0, RETURN_ALLOW),
        (RETURN, 0, 0, RETURN_ERRNO | number),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "no seccomp filter")


if __name__ == "__main__":
    refuse_pidfds(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606
