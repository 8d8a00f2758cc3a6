"""Pure: which errors of the driver, by their number (Xid), mean that a GPU must not be used.

From NVIDIA's catalogue of Xids (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html,
column "Resolution Bucket (Immediate Action)"): fatal are those that ask for a reset of the GPU
(RESET_GPU) or a restart of the machine (RESTART_BM, RESTART_VM), and 48 and 74, whose workflows
come to a reset. The rest are the doing of a program (RESTART_APP: 13, 31, 94 and others: the
program's own answers fail, and the GPU goes on), or call for nothing at once (IGNORE: 43, 63, 92).

Not in the list though the catalogue asks for a reset: 155, which links that go to sleep raise too.
Since driver R565 the driver itself says what a GPU needs (Xid 154); that is read apart and covers
what a list cannot, such as the NVLink errors 144 to 150 of Blackwell.
"""

FATAL: dict[int, str] = {
    46: "GPU stopped processing",
    48: "double-bit ECC error",
    62: "internal micro-controller halted",
    64: "memory could not be remapped",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    95: "uncontained memory error",
    109: "context switch timed out",
    110: "security fault",
    119: "GSP did not answer",
    120: "GSP error",
    136: "NVLink training failed",
    140: "unrecovered ECC error",
    143: "GPU could not be initialised",
    151: "key rotation error",
    156: "a resource was retired",
    158: "fatal timeout",
}
"""What each fatal Xid says, in a few words."""

RESTARTS = frozenset({79, 151})
"""Fatal ones after which a reset of the GPU is not enough."""

RECOVERY_ACTION_CHANGED = 154
"""The driver has changed its mind on what the GPU needs: ask it."""


def is_fatal(xid: int, ignored: frozenset[int] = frozenset()) -> bool:
    """Whether nothing may run on a GPU after this Xid.

    Args:
        xid: the number.
        ignored: numbers that the operator does not want to be fatal.
    """
    return xid in FATAL and xid not in ignored


def sentence(xid: int) -> str:
    """What happened and what to do, for a person."""
    remedy = "restart the machine" if xid in RESTARTS else "reset the GPU"
    return f"Xid {xid} ({FATAL.get(xid, 'unknown')}): {remedy}"
