"""Execute a command without any capability, as the shipped Pod does: root is a user like any other then.

It is started as a file, with `python -I -S`.
"""

import ctypes
import os
import struct
import sys

PR_CAPBSET_DROP = 24
VERSION = 0x20080522

if __name__ == "__main__":
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        capability = 0
        while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
            capability += 1
        libc.capset(struct.pack("=Ii", VERSION, 0), struct.pack("=6I", *[0] * 6))
    os.execv(sys.argv[1], sys.argv[1:])
