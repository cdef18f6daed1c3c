from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from deepmac_distill.machine import out_of_memory, refused_by_the_machine
from deepmac_distill.printable import printable


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"),
            "a/b: No space left on device; expected",
        ),
        (
            OSError(errno.EROFS, os.strerror(errno.EROFS)),
            "Read-only file system; expected a file",
        ),
        (
            OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), ".lock"),
            ".lock: No locks available; expected",
        ),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "x"), "x: Too many open files; expected a higher"),
        (
            OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x"),
            "x: File name too long; expected",
        ),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x"), "x: No such file or directory;"),
        (OSError("Could not\nopen"), "Could not open; expected a path that can be used"),
        (
            OSError(errno.EFBIG, os.strerror(errno.EFBIG), "x"),
            "x: File too large; expected a higher limit of",
        ),
        (
            OSError("Error writing bytes to file. Detail: [errno 27] File too large"),
            "Error writing bytes to file. Detail: [errno 27] File too large; expected a higher limit of file",
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "out of memory: libtorch_cpu.so: failed to map segment from shared object; expected less",
        ),
        (MemoryError(), "out of memory: MemoryError; expected less"),
        (
            MemoryError("Unable to allocate 447. GiB for an array"),
            "out of memory: Unable to allocate 447.",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total"),
            "out of memory: Tried to allocate 20.00 GiB; expected less",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 123 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "out of memory: can't allocate memory: you tried to allocate 123 bytes; expected",
        ),
        (
            RuntimeError("unable to open file </torch_1>: Too many open files (24)"),
            "Too many open files; e",
        ),
        (
            RuntimeError("[enforce fail] PytorchStreamWriter failed: file write failed"),
            "file write failed;",
        ),
        (MemoryError("std::bad_alloc"), "out of memory: MemoryError; expected less"),
        (RuntimeError("std::bad_alloc"), "out of memory: RuntimeError; expected less"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "out of memory: RuntimeError; expected less",
        ),
        (RuntimeError("can't start new thread"), "can't start new thread; expected a higher limit of proc"),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "Resource temporarily unavailable; exp"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), "'a\\udcff': holds bytes"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error: Exception, says: str) -> None:
    message = refused_by_the_machine(error)
    assert message is not None and message.startswith(says) and "\n" not in message


def test_a_bug_is_a_bug() -> None:
    for error in (ValueError("x"), RuntimeError("size mismatch"), KeyError("memory"), AssertionError()):
        assert refused_by_the_machine(error) is None and out_of_memory(error) is None


def test_memory_that_is_not_there_is_known_as_such() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert "allocate" in (out_of_memory(caught.value) or "")


def test_no_character_of_a_name_commands_the_terminal() -> None:
    assert printable("caf\u00e9 \U0001f600 [/lid]") == "caf\u00e9 \U0001f600 [/lid]"
    every = "".join(map(chr, (*range(32), *range(127, 160), 0x202E, 0x2028, 0xDCFF)))
    assert printable(every).isascii() and printable(every).isprintable()
    assert printable(os.fsdecode(b"a\xff\n")) == "a\\udcff\\n"
    assert str(Path(printable("runs/x"))) == "runs/x"
