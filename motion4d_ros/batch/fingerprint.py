"""A key of what goes in: of files their size and modification time, of remote ones their size and entity tag."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from motion4d_ros.batch.places import WEB, filesystem, is_url
from motion4d_ros.errors import Motion4DError
from motion4d_ros.options import no_such_path

_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "checksum", "generation")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "time")


def input_key(recording: str, beside: Iterable[str] = ()) -> str:
    """Of a recording and of the files that its options name. Raises `Motion4DError` where one is missing."""
    facts = [list(_facts(name)) for name in (recording, *beside)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _facts(name: str) -> Iterable[list[Any]]:
    return _remote(name) if is_url(name) else _local(Path(name))


def _local(path: Path) -> Iterable[list[Any]]:
    try:
        if not path.is_dir():
            about = path.stat()
            return [["", about.st_size, about.st_mtime_ns]]
        found = []
        for folder, folders, names in os.walk(path, onerror=_raise):
            folders.sort()
            for name in sorted(names):
                about = _stat(Path(folder) / name)
                found.append([os.path.relpath(f"{folder}/{name}", path), about.st_size, about.st_mtime_ns])
        return found
    except FileNotFoundError:
        raise no_such_path(path) from None
    except OSError as error:
        raise Motion4DError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from None


def _stat(path: Path) -> os.stat_result:
    """Of a link that leads nowhere (editors lock files by them): of the link."""
    try:
        return path.stat()
    except FileNotFoundError:
        return path.lstat()


def _raise(error: OSError) -> None:
    raise error


def _remote(url: str) -> Iterable[list[Any]]:
    files, path = filesystem(url)
    try:
        if url.startswith(WEB):
            return [["", *_fact(files.info(path))]]
        about = files.info(path)
        if about.get("type") != "directory":
            return [["", *_fact(about)]]
        found = files.find(path, detail=True)
        if not found:
            raise FileNotFoundError(path)
        return [[str(name)[len(path) :], *_fact(about)] for name, about in sorted(found.items())]
    except FileNotFoundError:
        raise Motion4DError(f"{url}: no such file or folder") from None
    except PermissionError as error:
        raise Motion4DError(f"{url}: you are not allowed to read it ({' '.join(str(error).split())[:200]})") from None
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise Motion4DError(f"{url}: cannot be read ({type(error).__name__}: {text})") from None


def _fact(about: dict[str, Any]) -> list[Any]:
    """Size, and what changes with the content: a tag, else a time."""
    named = next((about[name] for name in (*_TAGS, *_TIMES) if about.get(name) is not None), "")
    return [about.get("size"), str(named)]
