"""`harrier detect`: boxes for pictures, whole folders and videos, as JSON on standard output."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Api, CommandError, problem_code, problem_text
from app.cli.gauge import counted_pictures
from app.cli.passes import TtaFlips, TtaScales, wanted_passes
from app.cli.terminal import say, show
from app.cli.videos import detect_in_videos, is_video
from app.settings import get_settings

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
AT_A_TIME = 4
FAULTS_OF_A_PICTURE = frozenset({"image_too_large", "unsupported_image", "damaged_image"})
"""Other refusals are the same for every picture."""
MOST_KINDS = 5
"""Of other files that are named; the most frequent ones."""
RAW = {"Content-Type": "application/octet-stream"}


def add_to(app: typer.Typer) -> None:
    app.command()(detect)


def detect(
    sources: Annotated[list[Path], typer.Argument(metavar="FOLDER|FILE…")],
    model: Annotated[str | None, typer.Option(help="Id or alias.")] = None,
    score_threshold: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    nms_iou: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    max_detections: Annotated[int | None, typer.Option(min=1)] = None,
    classifier: Annotated[
        str | None, typer.Option(help="Id or alias of a classifier that looks at every box.")
    ] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="May be given several times.")] = None,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta", help="Look three times, smaller and mirrored: slower; measure whether it helps."
        ),
    ] = False,
    tta_scales: TtaScales = None,
    tta_flips: TtaFlips = None,
    every: Annotated[int | None, typer.Option(min=1, help="Of a video: look at every n-th frame.")] = None,
    annotate: Annotated[
        bool, typer.Option(help="Of a video: also make one with the detections drawn.")
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder for what is made of videos.")] = Path(),
) -> None:
    """Detect in pictures; a picture that fails is listed with its error, and the exit status is then 1.

    Videos (mp4, m4v, mov, mkv, webm, avi) become jobs; their detections and annotated videos are fetched.
    """
    given = {
        "model": model,
        "score_threshold": score_threshold,
        "nms_iou": nms_iou,
        "max_detections": max_detections,
        "classifier": classifier,
        "classes": classes,
        "tta": wanted_passes(tta, tta_scales, tta_flips),
    }
    parameters = {name: value for name, value in given.items() if value is not None}
    api = Api(get_settings())
    if any(is_video(source) for source in sources):
        of_videos = {"annotate": str(annotate).lower(), **({"every": str(every)} if every else {})}
        _detect_in_videos(api, sources, {**parameters, **of_videos}, out)
    else:
        files, others = _pictures(sources)
        _detect_in_pictures(api, files, parameters, others)


def _detect_in_videos(api: Api, sources: Sequence[Path], parameters: dict[str, Any], out: Path) -> None:
    others = [str(source) for source in sources if not is_video(source)]
    if others:
        raise CommandError(f"videos and pictures go into two calls; {others[0]} is no video")
    show(
        json.dumps({"videos": detect_in_videos(api, sources, parameters, out)}, indent=2, ensure_ascii=False)
    )


def _detect_in_pictures(
    api: Api, files: Sequence[Path], parameters: dict[str, Any], others: Counter[str]
) -> None:
    images = []
    with ThreadPoolExecutor(AT_A_TIME) as pool, counted_pictures("detecting", len(files)) as advance:
        for image in pool.map(lambda file: _look(api, file, parameters), files):
            images.append(image)
            advance(1)
    failed = [image["file"] for image in images if "error" in image]
    show(json.dumps({"images": images}, indent=2, ensure_ascii=False))
    if others:
        say(_not_looked_at(others))
    if failed:
        raise CommandError(
            f"{len(failed)} of {len(files)} pictures could not be used, for example {failed[0]}"
        )


def _look(api: Api, file: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    response = api.ask_patiently("POST", "/detect", content=file.read_bytes(), params=parameters, headers=RAW)
    if response.is_success:
        answer = response.json()
        return {"file": str(file), "model": answer["model"], **answer["images"][0]}
    if response.is_client_error and problem_code(response) not in FAULTS_OF_A_PICTURE:
        raise CommandError(problem_text(response))
    return {"file": str(file), "error": problem_text(response)}


def _pictures(sources: Sequence[Path]) -> tuple[list[Path], Counter[str]]:
    """Return the files to look at, and by suffix how many others lie beside them in folders."""
    pictures: list[Path] = []
    others: set[Path] = set()
    for source in sources:
        if source.is_dir():
            found, beside = _in_folder(source)
            pictures += found
            others.update(beside)
        elif source.is_file():
            pictures.append(source)
        else:
            raise CommandError(f"there is neither a folder nor a file at {source.absolute()}")
    return pictures, _by_suffix(others.difference(pictures))


def _in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = [path for path in files if path.suffix.lower() not in SUFFIXES]
    if not pictures:
        rest = f"; {_not_looked_at(_by_suffix(others))}" if others else ""
        raise CommandError(f"there is no picture in {folder.absolute()}{rest}")
    return pictures, others


def _by_suffix(files: Iterable[Path]) -> Counter[str]:
    return Counter(sorted(file.suffix.lower() for file in files))


def _not_looked_at(others: Counter[str]) -> str:
    kinds = [suffix or "without a suffix" for suffix, _ in others.most_common(MOST_KINDS)]
    more = ", …" if len(others) > MOST_KINDS else ""
    number = others.total()
    return f"{number} {'file was' if number == 1 else 'files were'} not looked at ({', '.join(kinds)}{more})"
