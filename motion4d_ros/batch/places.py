"""Where results go, and where remote recordings come from: a folder, or anything that fsspec has a name for."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from motion4d_ros.batch.carriers import DONE
from motion4d_ros.errors import Motion4DError
from motion4d_ros.failures import is_full
from motion4d_ros.files import write_atomically, write_text
from motion4d_ros.remedies import pip_install

HIDDEN = ".batch"
"""Folder within a local place: the lock, and what is being worked on."""
WEB = ("http://", "https://")
BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "az", "oss")
"""Storage without folders."""


def is_url(text: str) -> bool:
    """Whether fsspec is to read it."""
    return "://" in text


class Place(Protocol):
    """Where results go. Names are relative, with `/`."""

    name: str
    """An absolute path, or a URL."""
    token: str
    """What stands in the lock; "" = there is none."""

    def open(self) -> None:
        """Makes sure that it can be written to. Raises `Motion4DError`."""

    def close(self) -> None:
        """Leaves it."""

    def read_text(self, name: str) -> str | None:
        """A file's content, None where there is none. Raises `Motion4DError` where it cannot be read."""

    def write_text(self, name: str, text: str) -> None:
        """Writes a whole file. Raises `Motion4DError`."""

    def put_file(self, name: str, file: Path) -> None:
        """Moves a file there. Raises `Motion4DError`."""

    def holds_other(self, name: str) -> bool:
        """Whether something else than results has this name: it must not be replaced."""

    def publish(self, folder: Path, name: str) -> None:
        """Results take the place of what was there before, whole; `done.json` comes last. Raises `Motion4DError`."""

    def scratch(self) -> Path:
        """An existing folder in which results are to be made."""


def place_at(text: str, token: str = "") -> Place:
    """The place of a path or URL. `token`: what its lock must hold (`LocalPlace.check_same`)."""
    return RemotePlace(text) if is_url(text) else LocalPlace(Path(text), token)


class LocalPlace:
    """A folder of this machine, or of a file system that all nodes share."""

    def __init__(self, folder: Path, token: str = "") -> None:
        self._folder = folder.absolute()
        self.name = str(self._folder)
        self.token = token
        self._lock: BinaryIO | None = None

    def open(self) -> None:
        hidden = self._folder / HIDDEN
        try:
            hidden.mkdir(parents=True, exist_ok=True)
            self._lock = (hidden / "lock").open("ab+")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise Motion4DError(f"--out {self.name}: another batch writes to it; wait, or choose another") from None
            except OSError:  # some network file systems have no locks
                pass
            self.token = uuid.uuid4().hex
            self._lock.truncate(0)
            self._lock.write(self.token.encode())
            self._lock.flush()
            for name in ("work", "old"):  # what killed batches left
                shutil.rmtree(hidden / name, ignore_errors=True)
                (hidden / name).mkdir()
        except OSError as error:
            raise Motion4DError(f"--out {self.name}: {_cannot(error, self.name)}; choose another folder") from None

    def close(self) -> None:
        if self._lock is None:
            return
        hidden = self._folder / HIDDEN
        if self.token:
            for name in ("work", "old"):
                shutil.rmtree(hidden / name, ignore_errors=True)
            (hidden / "lock").unlink(missing_ok=True)
            for folder in (hidden, self._folder):
                remove_empty(folder)
        self._lock.close()
        self._lock = None

    def check_same(self) -> None:
        """Raises `Motion4DError` where this machine does not see the folder that the batch was started for."""
        try:
            found = (self._folder / HIDDEN / "lock").read_text(encoding="ascii", errors="replace")
        except OSError:
            found = ""
        if found != self.token:
            raise Motion4DError(
                f"{os.uname().nodename} does not see {self.name}: name a folder that all nodes share, or a URL (s3://…)"
            )

    def read_text(self, name: str) -> str | None:
        try:
            return (self._folder / name).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Motion4DError(f"{self._folder / name}: cannot be read ({error})") from None

    def write_text(self, name: str, text: str) -> None:
        try:
            write_text(self._folder / name, text)
        except OSError as error:
            raise Motion4DError(f"{self._folder / name}: {_cannot(error, self.name)}") from None

    def put_file(self, name: str, file: Path) -> None:
        try:
            with file.open("rb") as source:
                write_atomically(self._folder / name, lambda stream: shutil.copyfileobj(source, stream))
        except OSError as error:
            raise Motion4DError(f"{self._folder / name}: {_cannot(error, self.name)}") from None

    def holds_other(self, name: str) -> bool:
        goal = self._folder / name
        try:
            if not goal.is_dir():
                return goal.exists()
            return not (goal / DONE).exists() and any(goal.iterdir())
        except OSError:  # not to be looked into
            return True

    def publish(self, folder: Path, name: str) -> None:
        goal, old = self._folder / name, self._folder / HIDDEN / "old" / uuid.uuid4().hex
        if self.holds_other(name):
            raise Motion4DError(f"{goal}: holds something else than results, which is not replaced")
        try:
            folder.chmod(0o755)
            if goal.exists():
                goal.replace(old)
            folder.replace(goal)  # on the same file system: `scratch`
        except OSError as error:
            raise Motion4DError(f"{goal}: {_cannot(error, self.name)}") from None
        shutil.rmtree(old, ignore_errors=True)

    def scratch(self) -> Path:
        return self._folder / HIDDEN / "work"


class RemotePlace:
    """A folder behind a URL."""

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        self.token = ""
        self._files, self._root = filesystem(self.name)
        protocol = self._files.protocol
        self._protocols = (protocol,) if isinstance(protocol, str) else tuple(protocol)

    def open(self) -> None:
        name = f"{HIDDEN}-{uuid.uuid4().hex}"
        try:
            self.write_text(name, "may this be written to?\n")
            self._files.rm_file(f"{self._root}/{name}")
        except Motion4DError as error:
            raise Motion4DError(f"--out {str(error).replace(f'/{name}', '')}") from None
        except Exception as error:
            raise _told(error, f"--out {self.name}", "written to") from None

    def close(self) -> None:
        return

    def read_text(self, name: str) -> str | None:
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}")).decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise _told(error, f"{self.name}/{name}", "read") from None

    def write_text(self, name: str, text: str) -> None:
        path = f"{self._root}/{name}"
        try:
            self._make_folder(path.rpartition("/")[0])
            self._files.pipe_file(path, text.encode())
        except Exception as error:
            raise _told(error, f"{self.name}/{name}", "written") from None

    def put_file(self, name: str, file: Path) -> None:
        path = f"{self._root}/{name}"
        try:
            self._make_folder(path.rpartition("/")[0])
            self._files.put_file(str(file), path)
        except Exception as error:
            raise _told(error, f"{self.name}/{name}", "written") from None

    def holds_other(self, name: str) -> bool:
        return False  # half of a copy cannot be told from it

    def publish(self, folder: Path, name: str) -> None:
        goal = f"{self._root}/{name}"
        try:
            if self._files.exists(f"{goal}/{DONE}"):
                self._files.rm_file(f"{goal}/{DONE}")  # from now on there is no result
            if self._files.exists(goal):
                self._files.rm(goal, recursive=True)
        except Exception as error:
            raise _told(error, f"{self.name}/{name}", "replaced") from None
        for file in sorted(folder.rglob("*"), key=lambda path: (path.name == DONE, path)):
            if file.is_file():
                self.put_file(f"{name}/{file.relative_to(folder).as_posix()}", file)

    def scratch(self) -> Path:
        return Path(tempfile.gettempdir())

    def _make_folder(self, path: str) -> None:
        """Where there are folders: an object store would make a bucket of a misspelt name."""
        if not set(BUCKETS) & set(self._protocols):
            self._files.makedirs(path, exist_ok=True)


def remove_empty(folder: Path) -> None:
    """Removes a folder that is empty; others stay."""
    try:
        folder.rmdir()
    except OSError:
        return


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path within it. Raises `Motion4DError`."""
    try:
        import fsspec
    except ModuleNotFoundError:
        raise Motion4DError(f"{url}: needs fsspec: {pip_install('fsspec')} (or motion4d_ros[batch])") from None
    try:
        files, path = fsspec.url_to_fs(url, **({} if not url.startswith("file:") else {"auto_mkdir": True}))
    except ImportError as error:
        raise Motion4DError(f"{url}: needs another package ({' '.join(str(error).split())})") from None
    except Exception as error:
        raise _told(error, url, "opened") from None
    return files, str(path).rstrip("/")


def fetch(url: str, folder: Path) -> Path:
    """Brings a remote file or folder into `folder`, under its own name. Raises `Motion4DError`."""
    files, path = filesystem(url)
    name = path.rpartition("/")[2].partition("?")[0] or "recording"
    goal = folder / name
    try:
        if url.startswith(WEB) or files.isfile(path):  # the web has no folders
            files.get_file(path, str(goal))
            return goal
        if not files.exists(path):
            raise Motion4DError(f"{url}: no such file or folder")
        for item in files.find(path):
            inner = goal / str(item)[len(path) :].lstrip("/")
            inner.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(item, str(inner))
    except Motion4DError:
        raise
    except Exception as error:
        raise _told(error, url, "fetched") from error
    return goal


def _cannot(error: OSError, where: str) -> str:
    return f"no space left on {where}" if is_full(error) else f"cannot be written ({error.strerror or error})"


def _told(error: Exception, name: str, what: str) -> Motion4DError:
    """What a library of some storage raises, in one line."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if is_full(error):
        return Motion4DError(f"{name}: no space left on the device")
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in (errno.EACCES, errno.EPERM):
        return Motion4DError(f"{name}: you are not allowed to have it {what} ({text})")
    if isinstance(error, FileNotFoundError):
        return Motion4DError(f"{name}: no such file or folder")
    return Motion4DError(f"{name}: cannot be {what} ({type(error).__name__}: {text})")
