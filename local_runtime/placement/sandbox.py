"""What an engine's process may not do: reach a network, start programs, look into other processes,
read files that are none of its business.

GGUF files are hostile input to native code (reliability.md), so a child gives these up for good
before it reads one. Linux only, without any library: seccomp filters as in ``seccomp(2)`` and
Landlock as in ``landlock(7)``, by their system call numbers. Elsewhere, and where the kernel has
none of it, nothing happens; each function says whether what it does is in force.

Drivers of accelerators go on working: they need files under /dev, memory, threads and local
sockets, none of which is taken away.
"""

import ctypes
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from errno import EACCES, ENOSYS, EPERM
from pathlib import Path
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES_VERSION = 0x20080522  # capset(2): two sets of 32
_CAPABILITIES_KEPT = 1 << 2 | 1 << 14  # CAP_DAC_READ_SEARCH, CAP_IPC_LOCK
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1  # all threads of the process
_RET_ALLOW = 0x7FFF0000
_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_CLONE_THREAD = 0x00010000
_MIN_X32 = 0x40000000  # x32's system calls are x86-64's by other numbers
_SOCKETS_ALLOWED = (int(socket.AF_UNIX) if hasattr(socket, "AF_UNIX") else 1, 16)  # 16: netlink

# BPF: load a 32-bit word of struct seccomp_data, jump if equal / if any bit is set / if >=, return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENT_0 = 0, 4, 16


class _Calls(NamedTuple):
    """A machine's numbers (``asm/unistd_64.h``, ``asm-generic/unistd.h``)."""

    arch: int
    seccomp: int
    capset: int
    socket: int
    clone: int
    clone3: int
    kill: int
    spawning: tuple[int, ...]  # execve, execveat, fork, vfork
    prying: tuple[int, ...]  # see _X86_64


_X86_64 = _Calls(
    arch=0xC000003E,
    seccomp=317,
    capset=126,
    socket=41,
    clone=56,
    clone3=435,
    kill=62,
    spawning=(59, 322, 57, 58),
    # ptrace, process_vm_readv, process_vm_writev, pidfd_getfd, pidfd_open, kcmp, bpf, keyctl,
    # add_key, request_key, unshare, setns, mount, perf_event_open, userfaultfd, io_uring_setup
    prying=(101, 310, 311, 438, 434, 312, 321, 250, 248, 249, 272, 308, 165, 298, 323, 425),
)
_AARCH64 = _Calls(
    arch=0xC00000B7,
    seccomp=277,
    capset=91,
    socket=198,
    clone=220,
    clone3=435,
    kill=129,
    spawning=(221, 281),
    prying=(117, 270, 271, 438, 434, 272, 280, 219, 217, 218, 97, 268, 40, 241, 282, 425),
)
_MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def refuse_network() -> bool:
    """Sockets but local ones are refused from now on, and so is prying into other processes; in
    every thread. Whether that is in force.
    """
    calls = _calls()
    if calls is None:
        return False
    program = [
        *_preamble(calls),
        *_refuse(calls.prying, EPERM),
        *_when(calls.socket, [*_unless_argument_is(_SOCKETS_ALLOWED), _return_errno(EACCES)]),
        *_when(calls.kill, [*_unless_argument_is((os.getpid(),)), _return_errno(EPERM)]),
        (_RETURN, 0, 0, _RET_ALLOW),
    ]
    return _install(calls, program)


def refuse_processes() -> bool:
    """No program can be started from now on, and no process forked, in any thread; threads can.
    Whether that is in force.
    """
    calls = _calls()
    if calls is None:
        return False
    threads_only = [
        (_LOAD, 0, 0, _AT_ARGUMENT_0),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _RET_ALLOW),
        _return_errno(EPERM),
    ]
    program = [
        *_preamble(calls),
        *_refuse(calls.spawning, EPERM),
        # Its flags lie in memory, where no filter can look. The C library then uses clone.
        *_refuse((calls.clone3,), ENOSYS),
        *_when(calls.clone, threads_only),
        (_RETURN, 0, 0, _RET_ALLOW),
    ]
    return _install(calls, program)


def drop_capabilities() -> bool:
    """What root may do and nobody else is given up for good, but for reading files whatever their
    mode and locking memory; in this thread and those that it starts. Whether that is so.

    Root could look into its other processes with some of them whatever else is refused.
    """
    calls = _calls()
    if calls is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    kept = _CAPABILITIES_KEPT if hasattr(os, "geteuid") and os.geteuid() == 0 else 0
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; twice
    return bool(libc.syscall(calls.capset, header, sets) == 0)


_Line = tuple[int, int, int, int]


def _calls() -> _Calls | None:
    return _MACHINES.get(platform.machine()) if sys.platform == "linux" else None


def _return_errno(errno: int) -> _Line:
    return (_RETURN, 0, 0, _RET_ERRNO | errno)


def _preamble(calls: _Calls) -> list[_Line]:
    """Only this machine's own system calls; leaves the call's number loaded."""
    lines: list[_Line] = [
        (_LOAD, 0, 0, _AT_ARCH),
        (_EQUAL, 1, 0, calls.arch),
        (_RETURN, 0, 0, _RET_KILL_PROCESS),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]
    if calls is _X86_64:
        lines += [(_AT_LEAST, 0, 1, _MIN_X32), _return_errno(ENOSYS)]
    return lines


def _refuse(numbers: Sequence[int], errno: int) -> list[_Line]:
    lines: list[_Line] = []
    for number in numbers:
        lines += [(_EQUAL, 0, 1, number), _return_errno(errno)]
    return lines


def _when(number: int, lines: list[_Line]) -> list[_Line]:
    """``lines`` must end the filter: they leave something else loaded."""
    return [(_EQUAL, 0, len(lines), number), *lines]


def _unless_argument_is(values: Sequence[int]) -> list[_Line]:
    """Allow a call with such a first argument; go on with any other."""
    lines: list[_Line] = [(_LOAD, 0, 0, _AT_ARGUMENT_0)]
    for value in values:
        lines += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _RET_ALLOW)]
    return lines


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _install(calls: _Calls, lines: Sequence[_Line]) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    packed = b"".join(struct.pack("=HBBI", *line) for line in lines)
    code = ctypes.create_string_buffer(packed, len(packed))
    program = _Program(len(lines), ctypes.cast(code, ctypes.c_void_p))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    done = libc.syscall(
        calls.seccomp,
        _SECCOMP_SET_MODE_FILTER,
        _SECCOMP_FILTER_FLAG_TSYNC,
        ctypes.byref(program),
    )
    return bool(done == 0)


_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_MAKE_AND_REMOVE = _TRUNCATE | 1 << 8 | 1 << 5  # regular files
_HANDLED_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_HANDLED_LATER = (1 << 16) - 1  # from version 5 on
_KNOWS_TCP, _KNOWS_SCOPES = 4, 6
_TCP = 0b11  # bind and connect
_SCOPES = 0b11  # abstract sockets and signals stay among those who are confined in the same way
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_FOR_DEVICES = _READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV
# Where programs, libraries and what they ask of the machine lie. Not /etc as a whole, not /home,
# not /tmp: others' secrets are there.
_ACCELERATORS = ("/dev/kfd", "/dev/nvidiactl")
_SHARED_MEMORY = str(Path("/dev") / "shm")
_DRIVERS = ("cuda", "intel", "rocm")  # under /opt
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/nix/store", "/proc", "/sys",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime",
    "/etc/nsswitch.conf", "/etc/passwd", "/etc/OpenCL", "/etc/vulkan",
)  # fmt: skip


def restrict_files(model_files: Iterable[str]) -> bool:
    """From now on this thread, and those that it starts, can read code, the system's own files and
    ``model_files``, and write to devices only. Whether that is in force.

    It also ends all looking into processes that are not confined in the same way: this process's
    parent and its environment among them.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    if version < 1:
        return False
    handled = _HANDLED_BY_VERSION.get(version, _HANDLED_LATER)
    # What may be restricted grew with the kernels: files, then TCP, then signals and sockets.
    parts = 1 if version < _KNOWS_TCP else 2 if version < _KNOWS_SCOPES else 3
    attributes = struct.pack("=QQQ", handled, _TCP, _SCOPES)[: 8 * parts]
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        drivers = [f"/opt/{name}" for name in _DRIVERS]
        for path in {*_SYSTEM, *drivers, *_code(), *model_files}:
            _allow(libc, ruleset, path, _READ & handled)
        _allow(libc, ruleset, "/dev", _FOR_DEVICES & handled)
        if any(map(os.path.exists, _ACCELERATORS)):  # their drivers share memory by files
            _allow(libc, ruleset, _SHARED_MEMORY, (_FOR_DEVICES | _MAKE_AND_REMOVE) & handled)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return bool(libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _code() -> set[str]:
    """What Python may still have to import: its own folders, the packages', and ours."""
    root = Path(__file__).resolve().parents[2]
    ours = {str(root / name) for name in ("app", "plugins", "local_runtime")}
    inherited = {sys.prefix, sys.base_prefix, sys.exec_prefix, getattr(sys, "_MEIPASS", "")}
    if getattr(sys, "frozen", False):
        inherited.add(sys.executable)  # modules lie in it
    installed = {path for path in sys.path if "site-packages" in path or path.endswith(".zip")}
    return (ours | inherited | installed) - {"", "/"}


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, access: int) -> None:
    """What does not exist needs no rule."""
    try:
        where = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not Path(path).is_dir():
            access &= _ON_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, where))
        libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(where)
