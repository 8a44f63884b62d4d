"""Writes what `make bench` measured into docs/performance.md: `python -m tests.benchmarks.report`.

The page is written by hand but for what stands between `<!-- NAME -->` and `<!-- end of NAME -->`; each such
part is made of the file of the same name in build/benchmarks. Parts without a file stay as they are.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.plot import Axis, fitting_ticks, line_plot

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "benchmarks"
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
STAGES = {
    "decode": "decode_ms",
    "wait": "queue_ms",
    "fit": "preprocess_ms",
    "network": "inference_ms",
    "boxes": "postprocess_ms",
    "HTTP": "http_ms",
}
Figures = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(rounds: Sequence[float], digits: int = 1) -> str:
    """Return the median of some rounds with the lowest and the highest."""
    if not rounds:
        return "–"
    middle, low, high = (
        f"{each:.{digits}f}" for each in (statistics.median(rounds), min(rounds), max(rounds))
    )
    return f"{middle} ({low}–{high})"


def machine_line(machine: Figures) -> str:
    """Return one sentence about where and of what this was measured."""
    gpu = machine["gpu"] or "no GPU"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {gpu}; "
        f"Python {machine['python']}, torch {machine['torch']}; source {machine['source']}; "
        f"load before: {machine['load']}."
    )


def claims_table(claims: Figures) -> str:
    """Return what had to be shown, and whether it is."""
    return table(
        ["what must be shown", "limit", "found: median (lowest–highest)", "met"],
        [_claim_row(each) for each in claims.values()],
    )


def _claim_row(each: Figures) -> list[str]:
    sense = {">=": "≥", "<=": "≤"}[each["sense"]]
    found = each["found"]
    shown = "not measured"
    if found is not None:
        shown = f"{found['median']:g}"
        if len(each["rounds"]) > 1:
            shown += f" ({found['low']:g}–{found['high']:g})"
    note = f" ({each['note']})" if each["note"] else ""
    return [each["name"] + note, f"{sense} {each['limit']:g}", shown, "yes" if each["met"] else "**no**"]


def speed(figures: Figures) -> str:
    """Return the contenders by throughput, and the claims."""
    setting, missing = figures["setting"], figures["missing"]
    contenders = {name: each for name, each in figures.items() if isinstance(each.get("per_s"), list)}
    by_throughput = sorted(contenders.items(), key=lambda item: -statistics.median(item[1]["per_s"]))
    rows = [
        [
            name,
            spread(each["per_s"]),
            spread(each["p50_many_ms"]),
            spread(each["p99_many_ms"]),
            spread(each["p50_one_ms"]),
            _troubles(each["troubles"]),
        ]
        for name, each in by_throughput
    ]
    rows += [[name, "missing", "", "", "", why.split(";")[0][:80]] for name, why in missing.items()]
    many = setting["clients"]
    head = [
        "server",
        "images/s",
        f"p50 at {many}, ms",
        f"p99 at {many}, ms",
        "p50 at 1, ms",
        "not answered by 200",
    ]
    about = (
        f"{setting['rounds']} rounds of {setting['seconds']:g} s with {many} clients, "
        f"every picture once with one. "
        f"Harrier chose `{setting['executor']}` for itself. "
        f"The sender took {setting['client_cpu_ms']:.2f} ms of processor time a request. "
        "Shown are the median and the lowest–highest of the rounds."
    )
    return "\n\n".join([about, table(head, rows), claims_table(figures["claims"])])


def _troubles(troubles: Figures) -> str:
    return ", ".join(f"{times} × {what}" for what, times in troubles.items()) or "none"


def misbehaving(figures: Figures) -> str:
    """Return what good clients keep beside bad ones, for each server."""
    servers = {name: each for name, each in figures.items() if "alone_per_s" in each}
    rows = [
        [
            name,
            spread(each["alone_per_s"]),
            spread(each["beside_per_s"]),
            spread(each["kept"], 2),
            f"{statistics.median(each['damaged_answers']):.0f}",
            f"{statistics.median(each['resets']):.0f}",
            f"{sum(each['good_troubles']):.0f}",
        ]
        for name, each in servers.items()
    ]
    head = [
        "server",
        "alone, images/s",
        "beside them",
        "kept",
        "damaged answered",
        "resets",
        "good ones failed",
    ]
    return "\n\n".join([table(head, rows), claims_table(figures["claims"])])


FLOOD_ROWS = {
    "one": "one client",
    "many": "16 clients",
    "after": "one client, afterwards",
    "accepted": "accepted",
}


def overload(figures: Figures) -> str:
    """Return how four times the capacity is answered."""
    rounds = [each for name, each in figures.items() if name.startswith("round ")]
    memory = figures["memory"]
    rows = [
        [name, *(spread([each[f"{key}_{share}_ms"] for each in rounds]) for share in ("p50", "p99"))]
        for key, name in FLOOD_ROWS.items()
    ]
    rows.append(["refused", "", spread([each["refused_p99_ms"] for each in rounds])])
    hints = sum((Counter[str](each["retry_after_s"]) for each in rounds), Counter())
    about = (
        f"{len(rounds)} rounds; shown are the median and the lowest–highest. "
        f"Offered {spread([each['offered_per_s'] for each in rounds], 0)} requests a second, "
        f"accepted {spread([each['accepted_per_s'] for each in rounds], 0)}, "
        f"of what 16 clients had reached {spread([each['kept'] for each in rounds], 2)}: "
        "the sender and the refusals take the rest of the cores; "
        f"refused {hints.total()} in all with `Retry-After` of {_counts(hints)} s; "
        f"sent late by at most {max(each['sent_late_p99_ms'] for each in rounds):.1f} ms (p99). Memory: "
        + ", ".join(
            f"{role} {memory['before_mb'][role]:.0f} → {most:.0f} MB"
            for role, most in memory["most_mb"].items()
        )
        + "."
    )
    return "\n\n".join([about, table(["", "p50, ms", "p99, ms"], rows), claims_table(figures["claims"])])


def _counts(counted: Figures) -> str:
    return ", ".join(f"{value} ({times} times)" for value, times in sorted(counted.items())) or "none"


def soak(figures: Figures) -> str:
    """Return what ten thousand requests did to the memory."""
    ran, memory = figures["soak"], figures["memory"]
    plot = line_plot(
        "Resident memory while models are swapped",
        Axis("seconds", fitting_ticks(max(memory["at_s"]))),
        Axis("MB", fitting_ticks(max(*memory["engine"], *memory["api"]))),
        {role: list(zip(memory["at_s"], memory[role], strict=True))[::8] for role in ("engine", "api")},
    )
    _write_image("soak.svg", plot)
    about = (
        f"{ran['requests']:,} requests in {ran['seconds']:.0f} s ({ran['per_s']:.1f}/s, "
        f"p50 {ran['p50_ms']:.1f} ms, p99 {ran['p99_ms']:.1f} ms) "
        f"and {ran['swaps']} swaps of {ran['swap_p50_ms']:.1f} ms (median)."
    )
    return "\n\n".join([about, claims_table(figures["claims"]), "![memory](images/soak.svg)"])


def first(figures: Figures) -> str:
    """Return what the requests after a load take, one after the other."""
    backends = {name: each for name, each in figures.items() if "move_ms" in each}
    requests = [name for name in next(iter(backends.values())) if name.startswith("request ")]
    rows = [
        [
            name,
            str(each["swaps"]),
            *(spread(each[request]) for request in requests),
            f"{statistics.median(each['move_ms']):.0f}",
        ]
        for name, each in backends.items()
    ]
    head = ["backend", "moves", *(f"{name}, ms" for name in requests), "move and load, ms"]
    return "\n\n".join([table(head, rows), claims_table(figures["claims"])])


def picture_size(figures: Figures) -> str:
    """Return what a picture costs by its size."""
    points = list(figures.values())
    rows = [[f"{each['megapixels']:.1f}", f"{each['bytes'] / 1e6:.2f}", *_stages(each)] for each in points]
    _write_image(
        "picture-size.svg",
        line_plot(
            "One picture as it grows",
            Axis(
                "megapixels",
                fitting_ticks(points[-1]["megapixels"], points[0]["megapixels"]),
                logarithmic=True,
            ),
            Axis("ms", fitting_ticks(max(each["median_ms"] for each in points), 0.5), logarithmic=True),
            _lines(points, "megapixels"),
        ),
    )
    head = ["megapixels", "MB", "all, ms", *STAGES]
    return "\n\n".join([table(head, rows), "![cost by size](images/picture-size.svg)"])


def boxes(figures: Figures) -> str:
    """Return what a picture costs by the number of its boxes."""
    points = list(figures.values())
    rows = [[str(each["boxes"]), f"{each['answer_bytes'] / 1e3:.1f}", *_stages(each)] for each in points]
    _write_image(
        "boxes.svg",
        line_plot(
            "One picture as its boxes grow",
            Axis("boxes", fitting_ticks(max(points[-1]["boxes"], 1))),
            Axis("ms", fitting_ticks(max(each["median_ms"] for each in points))),
            _lines(points, "boxes"),
        ),
    )
    head = ["boxes", "answer, kB", "all, ms", *STAGES]
    return "\n\n".join([table(head, rows), "![cost by boxes](images/boxes.svg)"])


def gpu(figures: Figures) -> str:
    """Return images a second on a GPU, for each batch size that was measured."""
    rows = [
        [
            name,
            f"{each['per_s']:.0f}",
            f"{each['p50_ms']:.1f}",
            f"{each['bare_per_s']:.0f}",
            f"{each['share']:.2f}",
        ]
        for name, each in figures.items()
    ]
    return table(["batch", "images/s", "p50, ms", "bare engine, images/s", "share"], rows)


def _stages(each: Figures) -> list[str]:
    return [f"{each[name]:.1f}" for name in ("median_ms", *STAGES.values())]


def _lines(points: Sequence[Figures], across: str) -> dict[str, list[tuple[float, float]]]:
    shown = {"all": "median_ms", "decode": "decode_ms", "network": "inference_ms", "HTTP": "http_ms"}
    return {label: [(each[across], each[name]) for each in points] for label, name in shown.items()}


def _write_image(name: str, svg: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / name).write_text(svg, encoding="utf-8")


PARTS: dict[str, Callable[[Figures], str]] = {
    "serving_speed": speed,
    "serving_beside_misbehaving_clients": misbehaving,
    "serving_overload": overload,
    "serving_soak": soak,
    "serving_first": first,
    "serving_picture_size": picture_size,
    "serving_boxes": boxes,
    "serving_gpu": gpu,
}


def with_part(page: str, name: str, content: str) -> str:
    """Return the page with one of its parts made anew.

    Raises:
        ValueError: the page has no such part.
    """
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if marks.search(page) is None:
        raise ValueError(f"the page has no part {name}")
    return marks.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", page)


def measured(name: str) -> Figures | None:
    """Return a file of results; of several that differ in a parameter all figures together."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(f"{name}*.json"))]
    if not found:
        return None
    figures = {key: value for each in found for key, value in each["figures"].items()}
    return {"machine": found[0]["machine"], "figures": figures}


def main() -> None:
    """Write every part for which there are results."""
    page = PAGE.read_text(encoding="utf-8")
    for name, write in PARTS.items():
        results = measured(name)
        if results is None:
            print(f"{name}: not measured, stays as it is")
            continue
        content = write(results["figures"])
        page = with_part(page, name, f"{content}\n\n{machine_line(results['machine'])}")
    PAGE.write_text(page, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
