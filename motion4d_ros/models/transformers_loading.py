"""Models of `transformers` from a folder (`config.json`, `model.safetensors`). Nothing is downloaded or unpickled.

`transformers` fills weights that a file lacks with random numbers and only warns. Here they must all be there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from motion4d_ros.config import Config
from motion4d_ros.types import Motion4DError

DESCRIPTION = "config.json"
WEIGHTS = "model.safetensors"


def device_and_type(config: Config) -> tuple[str, torch.dtype]:
    """Where a network runs, and its numbers: half precision (bfloat16 where there is) on a GPU, if `models.half`."""
    device = config.run.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cuda" or not config.models.half:
        return device, torch.float32  # CPUs gain nothing by half precision, or can't do it
    return device, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def kind_of(folder: Path, known: Collection[str], wanted: str) -> str:
    """`model_type` of the description in `folder`, one of `known`. Raises `Motion4DError` for anything else.

    `wanted` says for people what is looked for.
    """
    path = folder / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind = str(found["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Motion4DError(f"{folder}: no model of transformers ({DESCRIPTION} is missing or says nothing)") from None
    if kind not in known:
        raise Motion4DError(f"{folder}: weights of another model ({DESCRIPTION} says {kind!r}), not {wanted}")
    if not (folder / WEIGHTS).is_file():
        raise Motion4DError(f"{folder}: no {WEIGHTS} in it; other formats are not read")
    return kind


def load_pretrained(kind: Any, folder: Path, number: torch.dtype, description: Any = None) -> Any:
    """An instance of the class `kind` with the weights in `folder`, as `number`. Raises `Motion4DError`.

    `description` replaces `config.json`.
    """
    given = {} if description is None else {"config": description}
    try:
        with _quiet():
            model, told = kind.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=number, **given
            )
    except Exception as error:  # transformers and safetensors each raise their own types
        raise Motion4DError(f"{folder}: transformers cannot load it ({first_line(error)})") from None
    absent = sorted(told["missing_keys"]) + sorted(str(item[0]) for item in told["mismatched_keys"])
    if absent:
        name = model.config.model_type
        raise Motion4DError(f"{folder}: not the weights of this {name} ({len(absent)} missing, like {absent[0]})")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and warnings of `transformers`: what is wrong with a file is told by us, in one line."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """What an exception says, in one short line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
