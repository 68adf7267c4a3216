"""Running PostgreSQL where we are root, as in most containers: it refuses root, so it runs as `nobody`.

`nobody` often may not pass the folders above ours (/root is 700). Instead of loosening other people's
folders the process then keeps one capability that only concerns file permissions.
"""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

from services.runtime.processes import LIBC

_USER = "nobody"
_CAP_DAC_OVERRIDE = 1
_PR_GET_SECUREBITS, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT, _AMBIENT_RAISE = 27, 28, 47, 2
_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}.get(platform.machine())


def needed() -> bool:
    return os.geteuid() == 0


def has_name() -> bool:
    """Whether this process's user is known to the system; in a container it may be a bare number."""
    try:
        return bool(pwd.getpwuid(os.geteuid()))
    except KeyError:
        return False


def own(folder: Path) -> None:
    """Give `folder` and what is in it to the unprivileged user, who must be the owner of a database folder."""
    user = pwd.getpwnam(_USER)
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, user.pw_uid, user.pw_gid)


def change(*paths: Path) -> Callable[[], None]:
    """What a child of root calls before exec to become `nobody` and still reach `paths`."""
    user = pwd.getpwnam(_USER)
    keep = not all(_open_to_all(parent) for path in paths for parent in path.absolute().parents)

    def become() -> None:
        if keep:
            # Else the change of user takes the capability, and access(2), which initdb asks, ignores it.
            bits = LIBC.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0)
            LIBC.prctl(_PR_SET_SECUREBITS, bits | _NO_SETUID_FIXUP, 0, 0, 0)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        if keep:
            _keep_file_access()

    return become


def _open_to_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def _keep_file_access() -> None:
    mask = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Two words each of effective, permitted, inheritable, for capabilities 0-31 and 32-63.
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if _SYS_CAPSET is not None and LIBC.syscall(_SYS_CAPSET, header, sets) == 0:
        LIBC.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
