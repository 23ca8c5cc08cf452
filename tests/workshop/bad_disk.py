"""A GNU tar whose system calls fail for some names, as on a disk with bad blocks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

_FAULTS = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int ends(const char *path, const char *variable) {
    const char *wanted = getenv(variable);
    size_t length = strlen(path);
    return wanted && length >= strlen(wanted) && !strcmp(path + length - strlen(wanted), wanted);
}

static int of_fd(int fd, const char *variable) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return ends(path, variable);
}

ssize_t read(int fd, void *to, size_t count) {
    if (of_fd(fd, "BAD_READ") && lseek(fd, 0, SEEK_CUR) > 0) { errno = EIO; return -1; }
    return REAL(read)(fd, to, count);
}

struct dirent *readdir(DIR *dir) {
    if (of_fd(dirfd(dir), "BAD_LIST") && telldir(dir) > 0) { errno = EIO; return 0; }
    return REAL(readdir)(dir);
}

struct dirent64 *readdir64(DIR *dir) { return (struct dirent64 *)readdir(dir); }

ssize_t flistxattr(int fd, char *list, size_t size) {
    if (of_fd(fd, "BAD_XATTR")) { errno = EIO; return -1; }
    return REAL(flistxattr)(fd, list, size);
}

ssize_t llistxattr(const char *path, char *list, size_t size) {
    if (ends(path, "BAD_XATTR")) { errno = EIO; return -1; }
    return REAL(llistxattr)(path, list, size);
}

ssize_t getxattr(const char *path, const char *name, void *value, size_t size) {
    if (ends(path, "BAD_ACL")) { errno = EIO; return -1; }
    return REAL(getxattr)(path, name, value, size);
}

int fstatat(int fd, const char *name, struct stat *about, int flags) {
    int done = REAL(fstatat)(fd, name, about, flags);
    if (!done && ends(name, "BAD_TYPE")) about->st_mode &= ~S_IFMT;
    return done;
}

int fstatat64(int fd, const char *name, struct stat64 *about, int flags) {
    return fstatat(fd, name, (struct stat *)about, flags);
}
"""


class BadDisk:
    """First on the PATH; behind it is the real tar."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = shutil.which("tar")
        self._place = place
        place.mkdir()
        (place / "faults.c").write_text(_FAULTS)
        command = ["gcc", "-shared", "-fPIC", "-o", place / "faults.so", place / "faults.c", "-ldl"]
        subprocess.run(command, check=True, stderr=subprocess.PIPE)
        self.fail()
        monkeypatch.setenv("PATH", str(place), prepend=":")

    def fail(self, **names: str) -> None:
        """From now on these calls (`read`, `list`, `xattr`, `acl`, `type`) fail for names that end so, no others."""
        faults = " ".join(f"BAD_{call.upper()}='{name}'" for call, name in names.items())
        script = self._place / "tar"
        script.write_text(f'#!/bin/sh\n{faults} LD_PRELOAD={self._place}/faults.so exec {self._real} "$@"\n')
        script.chmod(0o755)
