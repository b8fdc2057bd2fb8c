"""Files that are replaced whole, and what they keep of the files that were there."""

import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sksubnet.nets import check_writable, write_whole

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and pipes of POSIX")


@contextmanager
def somebody_else() -> Iterator[None]:
    """Have the rights of a user who is not the superuser, as most are."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_a_replaced_file_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.utime(path, (0, 0))
    path.chmod(mode)
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == mode
    assert path.stat().st_mtime > 0


@posix
def test_the_draft_of_a_private_file_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, modes = tmp_path / "file", []
    path.write_bytes(b"old")
    path.chmod(0o600)
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (modes.append(os.fstat(file).st_mode), sync(file))
    )
    write_whole(path, b"new")
    assert [stat.S_IMODE(mode) for mode in modes] == [0o600]


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files away")
def test_a_replaced_file_keeps_its_owner_and_tells_no_other_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    write_whole(path, b"new")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o640)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    write_whole(path, b"newer")
    found = path.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o600)


@posix
def test_extended_attributes_such_as_access_lists_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    try:
        os.setxattr(path, "user.sksubnet", b"kept")
    except (OSError, AttributeError):
        pytest.skip("no extended attributes here")
    write_whole(path, b"new")
    assert os.getxattr(path, "user.sksubnet") == b"kept"


@posix
@pytest.mark.parametrize("mode", [0o444, 0o400])
def test_a_read_only_file_is_not_replaced(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    for write in (lambda: write_whole(path, b"new"), lambda: check_writable(path)):
        with pytest.raises(PermissionError) as caught:
            write()
        assert str(caught.value) == f"[Errno 13] Permission denied: {str(path)!r}"
    assert path.read_bytes() == b"old" and stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(tmp_path) == ["file"]


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")
def test_a_file_of_somebody_else_is_not_replaced() -> None:
    folder = Path(tempfile.mkdtemp())  # others do not reach into tmp_path
    folder.chmod(0o777)
    try:
        path = folder / "file"
        path.write_bytes(b"old")
        path.chmod(0o644)
        with somebody_else(), pytest.raises(PermissionError, match=f"denied: {str(path)!r}$"):
            write_whole(path, b"new")
        assert path.read_bytes() == b"old"
    finally:
        shutil.rmtree(folder)


@posix
def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    path, found = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    reader.start()
    check_writable(path)
    write_whole(path, b"new")
    reader.join(10)
    assert found == [b"new"] and stat.S_ISFIFO(path.stat().st_mode)


@posix
def test_a_device_is_written_into(tmp_path: Path) -> None:
    device = tmp_path / "null"  # one of our own, for a mistake would replace that of the system
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError:
        pytest.skip("no devices can be made here")
    check_writable(device)
    write_whole(device, b"new")
    assert stat.S_ISCHR(device.lstat().st_mode) and device.read_bytes() == b""


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="descriptors have no names here")
def test_a_descriptor_is_written_into() -> None:
    reading, writing = os.pipe()
    try:
        check_writable(f"/dev/fd/{writing}")
        write_whole(f"/dev/fd/{writing}", b"new")
        assert os.read(reading, 10) == b"new"
    finally:
        os.close(reading)
        os.close(writing)


@posix
def test_a_path_of_bytes(tmp_path: Path) -> None:
    write_whole(os.fsencode(tmp_path / "file"), b"new")  # type: ignore[arg-type]
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_errors_read_well_and_name_the_file(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "a draft", None, "its target")

    monkeypatch.setattr(os, at, fail)
    with pytest.raises(OSError) as caught:
        write_whole("file", b"new")
    error = caught.value
    assert str(error) == "[Errno 28] No space left on device: 'file'"
    assert (error.errno, error.filename, error.filename2) == (28, "file", None)
    assert not os.listdir(tmp_path)


@posix
def test_a_folder_that_cannot_be_written_reads_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", "a draft")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(PermissionError) as caught:
        write_whole(tmp_path / "file", b"new")
    assert str(caught.value) == f"[Errno 13] Permission denied: {str(tmp_path / 'file')!r}"
