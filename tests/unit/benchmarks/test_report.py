"""The page made of results: each part, what is missing, what is not met."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import report
from tests.benchmarks.comparison import claim

MACHINE = {
    "processor": "abacus",
    "cores": 2,
    "load": 0.1,
    "memory_gb": 8,
    "gpu": None,
    "python": "3.11",
    "torch": "2.11",
    "threads": 2,
    "source": "abc",
}
CLAIMS = {
    "fast": claim("fast", ">=", 0.9, [1.0, 0.95]).figures(),
    "quick": claim("quick", "<=", 1.0, [1.5]).figures(),
    "unknown": claim("unknown", ">=", 1.0, [], "without it").figures(),
}
ROW = {"per_s": [90.0, 100.0], "p50_many_ms": [160.0], "p99_many_ms": [200.0], "p50_one_ms": [14.0]}
COST = {
    "median_ms": 20.0,
    "p90_ms": 25.0,
    "runs": 50,
    "http_ms": 1.0,
    **dict.fromkeys(("decode_ms", "queue_ms", "preprocess_ms", "inference_ms", "postprocess_ms"), 3.0),
}
FIGURES: dict[str, dict[str, Any]] = {
    "serving_speed": {
        "setting": {
            "rounds": 2,
            "seconds": 2.5,
            "clients": 16,
            "executor": "openvino:bf16",
            "client_cpu_ms": 0.05,
        },
        "missing": {"Mosec": "not installed; make bench-peers"},
        "bound": {**ROW, "p50_many_ms": [], "p99_many_ms": [], "troubles": {}},
        "Harrier": {**ROW, "troubles": {"503": 2}},
        "claims": CLAIMS,
    },
    "serving_beside_misbehaving_clients": {
        "Harrier": {
            "alone_per_s": [100.0],
            "beside_per_s": [90.0],
            "kept": [0.9],
            "damaged_answers": [30],
            "resets": [70],
            "good_troubles": [0],
        },
        "missing": {},
        "claims": CLAIMS,
    },
    "serving_overload": {
        **{
            f"round {number}": {
                "one_p50_ms": 15.0,
                "one_p99_ms": 20.0,
                "many_p50_ms": 150.0,
                "many_p99_ms": 200.0,
                "after_p50_ms": 15.0,
                "after_p99_ms": 21.0,
                "accepted_p50_ms": 30.0,
                "accepted_p99_ms": 50.0 + number,
                "offered_per_s": 400.0,
                "accepted_per_s": 95.0,
                "kept": 0.95,
                "refused_p99_ms": 12.0,
                "retry_after_s": {"1": 1525},
                "sent_late_p99_ms": 0.4,
            }
            for number in (1, 2)
        },
        "memory": {"before_mb": {"api": 100.0, "engine": 700.0}, "most_mb": {"api": 120.0, "engine": 720.0}},
        "claims": CLAIMS,
    },
    "serving_soak": {
        "soak": {
            "requests": 10000,
            "seconds": 100.0,
            "per_s": 100.0,
            "p50_ms": 80.0,
            "p99_ms": 120.0,
            "swaps": 200,
            "swap_p50_ms": 3.0,
        },
        "memory": {"at_s": [0.25, 0.5], "api": [100.0, 101.0], "engine": [700.0, 700.0]},
        "claims": CLAIMS,
    },
    "serving_first": {
        "onnxruntime": {
            "swaps": 3,
            "request 1": [20.0, 21.0, 25.0],
            "request 100": [19.0, 20.0, 22.0],
            "hundredth": [19.0, 20.0, 22.0],
            "move_ms": [700.0, 650.0, 800.0],
            "loads": 3,
        },
        "claims": CLAIMS,
    },
    "serving_picture_size": {
        "0.3 MP": {"megapixels": 0.3, "bytes": 95_000, **COST},
        "48.0 MP": {"megapixels": 48.0, "bytes": 3_200_000, **COST},
    },
    "serving_boxes": {
        "0 boxes": {"boxes": 0, "answer_bytes": 260, **COST},
        "300 boxes": {"boxes": 299, "answer_bytes": 31_000, **COST},
    },
    "serving_gpu": {
        "batch 1": {"per_s": 200.0, "p50_ms": 5.0, "bare_per_s": 300.0, "share": 0.67, "gpu": "a card"}
    },
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and a page of their own."""
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    (tmp_path / "results").mkdir()
    marks = "\n".join(f"<!-- {name} -->\nold {name}\n<!-- end of {name} -->" for name in report.PARTS)
    (tmp_path / "page.md").write_text(f"# By hand\n{marks}\nBelow.\n", encoding="utf-8")
    return tmp_path


def write(place: Path, name: str, figures: dict[str, Any]) -> None:
    results = {"machine": MACHINE, "figures": figures}
    (place / "results" / f"{name}.json").write_text(json.dumps(results), encoding="utf-8")


def test_every_part_is_written_of_its_results(place: Path) -> None:
    for name, figures in FIGURES.items():
        write(place, name, figures)
    report.main()
    page = (place / "page.md").read_text(encoding="utf-8")
    assert FIGURES.keys() == report.PARTS.keys()
    assert page.startswith("# By hand\n")
    assert page.endswith("Below.\n")
    assert "old" not in page
    assert "| Harrier | 95.0 (90.0–100.0) | 160.0 (160.0–160.0) |" in page
    assert "| Mosec | missing |" in page
    assert "2 × 503" in page
    assert "| fast | ≥ 0.9 | 0.975 (0.95–1) | yes |" in page
    assert "| quick | ≤ 1 | 1.5 | **no** |" in page
    assert "| onnxruntime | 3 | 21.0 (20.0–25.0) | 20.0 (19.0–22.0) | 700 |" in page
    assert "| unknown (without it) | ≥ 1 | not measured | **no** |" in page
    assert page.count("abacus, 2 cores") == len(FIGURES)
    images = {image.name for image in (place / "images").iterdir()}
    assert images == {"soak.svg", "picture-size.svg", "boxes.svg"}


def test_what_was_not_measured_stays_as_it_is(place: Path) -> None:
    write(place, "serving_boxes", FIGURES["serving_boxes"])
    report.main()
    page = (place / "page.md").read_text(encoding="utf-8")
    assert "old serving_boxes" not in page
    assert page.count("old ") == len(report.PARTS) - 1


def test_results_of_several_parameters_are_one_part(place: Path) -> None:
    for batch in (1, 8):
        write(place, f"serving_gpu[{batch}]", {f"batch {batch}": FIGURES["serving_gpu"]["batch 1"]})
    found = report.measured("serving_gpu")
    assert found is not None
    assert set(found["figures"]) == {"batch 1", "batch 8"}


def test_a_page_without_the_part_is_an_error() -> None:
    with pytest.raises(ValueError, match="no part serving_gpu"):
        report.with_part("# a page\n", "serving_gpu", "")


def test_the_page_of_the_project_has_every_part() -> None:
    page = (Path(report.__file__).resolve().parents[2] / "docs" / "performance.md").read_text(
        encoding="utf-8"
    )
    for name in report.PARTS:
        assert "new" in report.with_part(page, name, "new")
