"""`harrier weights`: the only command that ever downloads, from the original projects' release pages."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Annotated

import httpx2
import typer

from app.cli.client import Api, CommandError
from app.cli.models import import_file
from app.cli.terminal import say, show, show_table
from app.cli.transfer import receive
from app.settings import get_settings

HOST = "https://github.com"
YOLOX = "Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
NANODET = "RangiLyu/nanodet/releases/download/v1.0.0-alpha-1"
FILES = {
    "yolox-nano": f"{YOLOX}/yolox_nano.pth",
    "yolox-tiny": f"{YOLOX}/yolox_tiny.pth",
    "yolox-s": f"{YOLOX}/yolox_s.pth",
    "yolox-m": f"{YOLOX}/yolox_m.pth",
    "yolox-l": f"{YOLOX}/yolox_l.pth",
    "yolox-x": f"{YOLOX}/yolox_x.pth",
    "nanodet-plus-m": f"{NANODET}/nanodet-plus-m_416_checkpoint.ckpt",
    "nanodet-plus-m-1.5x": f"{NANODET}/nanodet-plus-m-1.5x_416_checkpoint.ckpt",
}
TIMEOUT_S = 30.0

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_all() -> None:
    """List what can be had, and from where."""
    show_table(("NAME", "ADDRESS"), ((name, f"{HOST}/{file}") for name, file in FILES.items()))


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="An architecture, for example yolox-nano.")],
    sha256: Annotated[str | None, typer.Option(help="Refuse a file with another sha256.")] = None,
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Only save the file, do not import it.")
    ] = None,
) -> None:
    """Download weights trained on COCO and import them: then `init: "pretrained"` finds them."""
    if name not in FILES:
        raise CommandError(f"there are no weights {name!r}; there are: {', '.join(FILES)}")
    api = Api(get_settings())
    if output is None:
        api.get("/version")  # before megabytes are fetched for a server that does not answer
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder) / Path(FILES[name]).name
        digest = fetch(f"{HOST}/{FILES[name]}", fetched)
        say(f"sha256 {digest}")
        if sha256 is not None and digest != sha256.lower():
            raise CommandError(f"the sha256 is not the expected {sha256.lower()}; nothing was kept")
        if output is not None:
            output.write_bytes(fetched.read_bytes())
            show(str(output))
            return
        show(import_file(api, fetched, {"name": f"{name} (COCO)", "architecture": name}))


def fetch(address: str, target: Path, *, transport: httpx2.BaseTransport | None = None) -> str:
    """Download a file and return its sha256.

    Raises:
        CommandError: the address cannot be reached, or has no such file.
    """
    digest = hashlib.sha256()
    try:
        with (
            httpx2.Client(follow_redirects=True, timeout=TIMEOUT_S, transport=transport) as http,
            http.stream("GET", address) as response,
            target.open("wb") as file,
        ):
            response.raise_for_status()

            def keep(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            receive(response, target.name, keep)
    except httpx2.HTTPError as error:
        raise CommandError(
            f"{address} cannot be had: {error}.\n"
            "Fetch it on a machine with a network, then: harrier models import FILE"
        ) from None
    return digest.hexdigest()
