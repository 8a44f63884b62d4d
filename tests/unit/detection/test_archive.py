"""Archives unpack into one folder, or are refused with a code; nothing appears elsewhere."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from detection.data.archive import ArchiveFault, ArchiveLimits, extract_archive, sniff_archive
from detection.errors import ArchiveError
from tests.archives import RawZipEntry, raw_zip, tar_of, tar_with, zip_of

FILES = {
    "data.yaml": b"names: [a]\n",
    "images/train/one.jpg": bytes(range(256)) * 40,
    "images/train/größe.jpg": b"x",
    "labels/empty.txt": b"",
    "deep/er/and/deeper/" + "n" * 90 + ".txt": b"long",
}
SMALL = ArchiveLimits(max_entries=20, max_file_bytes=1_000_000, max_total_bytes=2_000_000, free_bytes=100_000)


def gz_of(files: dict[str, bytes]) -> bytes:
    return gzip.compress(tar_of(files))


def zst_of(files: dict[str, bytes]) -> bytes:
    return zstandard.ZstdCompressor().compress(tar_of(files))


WRITERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zip_of,
    "tar": tar_of,
    "tar.gz": gz_of,
    "tar.zst": zst_of,
}


class Unpacker:
    """Unpacks bytes into a folder of its own and watches the one around it."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder
        self.target = folder / "target"
        self.archive = folder / "archive"

    def __call__(self, data: bytes, limits: ArchiveLimits = SMALL) -> dict[str, bytes]:
        self.archive.write_bytes(data)
        names = extract_archive(self.archive, self.target, limits)
        return {name: (self.target / name).read_bytes() for name in names}

    def refuses(self, data: bytes, limits: ArchiveLimits = SMALL) -> str:
        with pytest.raises(ArchiveError) as caught:
            self(data, limits)
        assert sorted(path.name for path in self.outside.iterdir()) == ["archive", "target"]
        assert caught.value.problem
        assert str(caught.value).isprintable()
        return caught.value.code


@pytest.fixture
def unpack(tmp_path: Path) -> Unpacker:
    folder = tmp_path / "around"
    folder.mkdir()
    return Unpacker(folder)


@pytest.mark.parametrize("kind", WRITERS)
def test_files_come_out_as_they_went_in(unpack: Unpacker, kind: str) -> None:
    data = WRITERS[kind](FILES)

    assert sniff_archive(data[:512]) == kind
    assert unpack(data) == FILES


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_every_tar_layout(unpack: Unpacker, layout: int) -> None:
    files = {f"./{name}": content for name, content in FILES.items()}

    assert unpack(tar_of(files, layout=layout)) == FILES


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_tar(unpack: Unpacker, layout: int) -> None:
    files = {"a/" + "ö" * 120 + ".txt": b"long", "b.txt": b"short"}

    assert unpack(tar_of(files, layout=layout)) == files


def test_stored_zip(unpack: Unpacker) -> None:
    assert unpack(zip_of(FILES, zipfile.ZIP_STORED)) == FILES


def test_zip_written_as_a_stream(unpack: Unpacker, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader:
        with os.fdopen(write_end, "wb") as writer, zipfile.ZipFile(writer, "w") as archive:
            archive.writestr("a.txt", b"streamed")
            archive.writestr("b.txt", b"twice")
        assert unpack(reader.read()) == {"a.txt": b"streamed", "b.txt": b"twice"}


def test_zip_with_large_archive_records(unpack: Unpacker, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "large.zip", "w") as archive:
        with archive.open("a.txt", "w", force_zip64=True) as file:
            file.write(b"large")
        archive.writestr("b.txt", b"small")
    data = as_zip64((tmp_path / "large.zip").read_bytes())

    assert unpack(data) == {"a.txt": b"large", "b.txt": b"small"}


def as_zip64(data: bytes) -> bytes:
    """Give an archive the record and the locator that large ones have."""
    body, end = data[:-22], struct.unpack("<4s4H2LH", data[-22:])
    count, size, offset = end[4], end[5], end[6]
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(body), 1)
    return body + record + locator + data[-22:]


@pytest.mark.parametrize("kept", [8, 24])
def test_large_values_stand_in_an_extra_field(unpack: Unpacker, kept: int) -> None:
    """A small entry that writes its sizes as if they were large, with the numbers or without."""
    values = struct.pack("<3Q", 5, 5, 0)[:kept]
    extra = struct.pack("<2H", 0x9999, 2) + b"xx" + struct.pack("<2H", 1, len(values)) + values
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 0x3610A686, 5, 5, 1, 0) + b"a" + b"hello"
    table = struct.pack("<4s6H3L5H2L", b"PK\1\2", 0x314, 45, 0, 0, 0, 0, 0x3610A686, 2**32 - 1, 2**32 - 1,
                        1, len(extra), 0, 0, 0, 0, 2**32 - 1) + b"a" + extra  # fmt: skip
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(table), len(local), 0)

    if kept == 24:
        assert unpack(local + table + end) == {"a": b"hello"}
    else:
        assert unpack.refuses(local + table + end) == ArchiveFault.DAMAGED


def test_names_of_links_are_passed_over_and_files_need_names(unpack: Unpacker) -> None:
    link = tarfile.TarInfo("x")
    link.type = tarfile.SYMTYPE
    link.linkname = "l" * 200
    nameless = tarfile.TarInfo("./")

    assert unpack.refuses(tar_with([(link, b"")])) == ArchiveFault.ENTRY
    block = bytearray(tar_with([(nameless, b"")]))
    block[:2] = b".\0"
    total = sum(block[:148]) + sum(block[156:512]) + 256
    block[148:156] = b"%06o\0 " % total
    assert unpack.refuses(bytes(block)) == ArchiveFault.PATH


def test_junk_of_desktops_is_passed_over(unpack: Unpacker) -> None:
    files = {"__MACOSX/._a.txt": b"", ".DS_Store": b"", "x/Thumbs.db": b"", "x/._a.txt": b"", "x/a.txt": b"a"}

    assert unpack(zip_of(files)) == {"x/a.txt": b"a"}


def test_names_are_composed(unpack: Unpacker) -> None:
    assert list(unpack(zip_of({"gro\u0308ße.txt": b""}))) == ["größe.txt"]


def test_names_in_an_old_code_page(unpack: Unpacker) -> None:
    assert list(unpack(raw_zip([RawZipEntry("größe.txt".encode("cp437"))]))) == ["größe.txt"]


def test_names_that_differ_in_case_are_two_files(unpack: Unpacker) -> None:
    assert unpack(zip_of({"A.txt": b"1", "a.txt": b"2"})) == {"A.txt": b"1", "a.txt": b"2"}


def test_archives_inside_stay_closed(unpack: Unpacker) -> None:
    inner = zip_of({"a.txt": b"a"})

    assert unpack(zip_of({"inner.zip": inner})) == {"inner.zip": inner}


def test_files_get_no_rights_from_the_archive(unpack: Unpacker) -> None:
    unpack(raw_zip([RawZipEntry(b"run.sh", b"x", mode=stat.S_IFREG | 0o777)]))

    assert not (unpack.target / "run.sh").stat().st_mode & 0o111


HOSTILE_NAMES = [
    "../x", "a/../../x", "/abs", "//host/share", "C:\\x", "c:x", "..\\x", "a\\b", "a//b", "a/./b", "a/..",
    "..", "x.", "x ", "a./b", "n" * 256, "/".join("d" * 40), "a/" * 600 + "b", "a\nb", "a\x7fb",
    "‥/x", "．．/x", "a／b", "℀/x", "．",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_refused(unpack: Unpacker, name: str) -> None:
    assert unpack.refuses(raw_zip([RawZipEntry(name.encode(), b"x")])) == ArchiveFault.PATH


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "a\0b"])
def test_hostile_names_in_tar_are_refused_or_harmless(unpack: Unpacker, name: str) -> None:
    data = tar_of({name: b"x"})
    if "\0" in name:
        assert unpack(data) == {"a": b"x"}
    else:
        assert unpack.refuses(data) == ArchiveFault.PATH


def test_nul_in_a_zip_name_is_refused(unpack: Unpacker) -> None:
    assert unpack.refuses(raw_zip([RawZipEntry(b"a\0b.txt", b"x")])) == ArchiveFault.PATH


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"7", b"V"],
)
def test_only_files_and_folders_come_out_of_a_tar(unpack: Unpacker, kind: bytes) -> None:
    member = tarfile.TarInfo("x")
    member.type = kind
    member.linkname = "/etc/passwd"

    assert unpack.refuses(tar_with([(member, b"")])) == ArchiveFault.ENTRY


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_only_files_and_folders_come_out_of_a_zip(unpack: Unpacker, kind: int) -> None:
    data = raw_zip([RawZipEntry(b"x", b"/etc/passwd", mode=kind | 0o777)])

    assert unpack.refuses(data) == ArchiveFault.ENTRY


@pytest.mark.parametrize("right", [stat.S_ISUID, stat.S_ISGID])
def test_files_that_run_as_their_owner_are_refused(unpack: Unpacker, right: int) -> None:
    member = tarfile.TarInfo("x")
    member.mode = 0o755 | right

    assert unpack.refuses(tar_with([(member, b"")])) == ArchiveFault.ENTRY
    (unpack.target).rmdir()
    assert (
        unpack.refuses(raw_zip([RawZipEntry(b"x", mode=stat.S_IFREG | 0o755 | right)])) == ArchiveFault.ENTRY
    )


def test_link_then_file_through_it(unpack: Unpacker) -> None:
    link = tarfile.TarInfo("dir")
    link.type = tarfile.SYMTYPE
    link.linkname = str(unpack.outside)
    through = tarfile.TarInfo("dir/escaped")

    assert unpack.refuses(tar_with([(link, b""), (through, b"")])) == ArchiveFault.ENTRY


def test_existing_links_are_not_followed(unpack: Unpacker) -> None:
    unpack.target.mkdir()
    elsewhere = unpack.outside.parent / "elsewhere"
    elsewhere.mkdir()
    (unpack.target / "dir").symlink_to(elsewhere)
    (unpack.target / "file").symlink_to(elsewhere / "file")

    assert unpack.refuses(zip_of({"dir/escaped": b"x"})) == ArchiveFault.DUPLICATE
    assert unpack.refuses(zip_of({"file": b"x"})) == ArchiveFault.DUPLICATE
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("path", ["../x", "replaced.txt"])
def test_extended_name_that_is_not_needed_is_refused(unpack: Unpacker, path: str) -> None:
    member = tarfile.TarInfo("harmless.txt")
    member.pax_headers = {"path": path}

    assert unpack.refuses(tar_with([(member, b"")], layout=tarfile.PAX_FORMAT)) == ArchiveFault.PATH


@pytest.mark.parametrize("records", [{"size": "99"}, {"GNU.sparse.major": "1", "GNU.sparse.name": "x"}])
def test_extended_size_is_refused(unpack: Unpacker, records: dict[str, str]) -> None:
    member = tarfile.TarInfo("a.txt")
    member.pax_headers = records

    assert unpack.refuses(tar_with([(member, b"")], layout=tarfile.PAX_FORMAT)) == ArchiveFault.ENTRY


def test_harmless_extended_records_are_taken(unpack: Unpacker) -> None:
    member = tarfile.TarInfo("a.txt")
    member.pax_headers = {"mtime": "1.5", "comment": "x\ny=z"}

    assert unpack(tar_with([(member, b"")], layout=tarfile.PAX_FORMAT)) == {"a.txt": b""}


@pytest.mark.parametrize(
    "payload", [b"x", b"99 path=a\n", b"6 x=\n", b"0 a=b\n", b"-9 a=b\n", b"9 path\n\n\n"]
)
def test_extended_header_that_cannot_be_read(unpack: Unpacker, payload: bytes) -> None:
    member = tarfile.TarInfo("pax")
    member.type = tarfile.XHDTYPE
    member.size = len(payload)

    assert unpack.refuses(tar_with([(member, payload)])) == ArchiveFault.DAMAGED


def test_extended_header_without_measure(unpack: Unpacker) -> None:
    member = tarfile.TarInfo("pax")
    member.type = tarfile.XHDTYPE
    member.size = 2 * 1024**2

    assert unpack.refuses(tar_with([(member, bytes(member.size))])) == ArchiveFault.DAMAGED


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.zst"])
def test_bomb_is_stopped_while_it_grows(unpack: Unpacker, kind: str) -> None:
    limits = ArchiveLimits(free_bytes=1_000_000, max_ratio=100)
    data = WRITERS[kind]({"zeros": bytes(30_000_000)})

    assert unpack.refuses(data, limits) == ArchiveFault.BOMB
    assert sum(path.stat().st_size for path in unpack.target.rglob("*")) <= 10_000_000


@pytest.mark.parametrize("kind", WRITERS)
def test_too_large_a_file(unpack: Unpacker, kind: str) -> None:
    content = random.Random(0).randbytes(1_000_001)

    assert unpack.refuses(WRITERS[kind]({"noise": content})) == ArchiveFault.TOO_LARGE


@pytest.mark.parametrize("kind", WRITERS)
def test_too_much_in_all(unpack: Unpacker, kind: str) -> None:
    content = random.Random(0).randbytes(900_000)

    assert unpack.refuses(WRITERS[kind]({f"noise{n}": content for n in range(3)})) == ArchiveFault.TOO_LARGE


@pytest.mark.parametrize("kind", WRITERS)
def test_too_many_entries(unpack: Unpacker, kind: str) -> None:
    assert unpack.refuses(WRITERS[kind]({f"{n}.txt": b"" for n in range(21)})) == ArchiveFault.TOO_MANY


def test_entries_that_share_bytes(unpack: Unpacker) -> None:
    first = RawZipEntry(b"a", bytes(1000))
    data = raw_zip([first, RawZipEntry(b"a", bytes(1000), offset=0)])
    assert unpack.refuses(data) == ArchiveFault.DAMAGED


def test_quoted_overlap(unpack: Unpacker) -> None:
    """The classic: one stored entry quotes the header of the next as its content."""
    inner = raw_zip([RawZipEntry(b"kernel", bytes(5000))])
    local = inner[: inner.index(b"PK\1\2")]
    data = raw_zip(
        [
            RawZipEntry(b"quoting", local, method=0),
            RawZipEntry(b"kernel", bytes(5000), offset=30 + len(b"quoting")),
        ]
    )

    assert unpack.refuses(data) == ArchiveFault.DAMAGED


@pytest.mark.parametrize(
    "entry",
    [
        RawZipEntry(b"a", b"hello", size=4),
        RawZipEntry(b"a", b"hello", size=6),
        RawZipEntry(b"a", b"hello", checksum=1),
        RawZipEntry(b"a", b"hello", packed_size=3),
        RawZipEntry(b"a", b"hello", packed_size=4_000_000),
        RawZipEntry(b"a", b"hello", local_name=b"b"),
        RawZipEntry(b"a", b"hello", packed=b"\xff\xff\xff"),
        RawZipEntry(b"a", b"hello", packed=b""),
        RawZipEntry(b"a", b"hello", offset=7),
        RawZipEntry(b"a", b"hello", offset=4_000_000),
        RawZipEntry(b"a", b"hello", size=0xFFFFFFFF),
        RawZipEntry(b"a/", b"hello"),
    ],
    ids=repr,
)
def test_zip_that_contradicts_itself(unpack: Unpacker, entry: RawZipEntry) -> None:
    assert unpack.refuses(raw_zip([entry])) == ArchiveFault.DAMAGED


@pytest.mark.parametrize("num_records", [0, 2, 65535])
def test_zip_that_miscounts(unpack: Unpacker, num_records: int) -> None:
    data = raw_zip([RawZipEntry(b"a", b"hello")], num_records=num_records)

    assert unpack.refuses(data) == ArchiveFault.DAMAGED


def test_large_archive_record_that_lies(unpack: Unpacker) -> None:
    data = as_zip64(zip_of({"a.txt": b"a"}))
    position = data.index(b"PK\6\6")
    for offset, value in ((32, 2**40), (40, 2**62), (48, 2**62)):
        lying = data[: position + offset] + struct.pack("<Q", value) + data[position + offset + 8 :]
        assert unpack.refuses(lying) == ArchiveFault.DAMAGED


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted(unpack: Unpacker, flag: int) -> None:
    assert unpack.refuses(raw_zip([RawZipEntry(b"a", b"hello", flags=flag)])) == ArchiveFault.ENCRYPTED


@pytest.mark.parametrize("method", [1, 9, 12, 14, 93, 99])
def test_unknown_method(unpack: Unpacker, method: int) -> None:
    assert unpack.refuses(raw_zip([RawZipEntry(b"a", b"hello", method=method)])) == ArchiveFault.METHOD


def test_trailing_data(unpack: Unpacker) -> None:
    assert unpack.refuses(raw_zip([RawZipEntry(b"a", b"hello")], trailer=b"junk")) == ArchiveFault.DAMAGED
    assert unpack.refuses(tar_of({"b": b"x"}) + b"junk") == ArchiveFault.DAMAGED


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_cut_off(unpack: Unpacker, kind: str, share: float) -> None:
    data = WRITERS[kind]({"noise": random.Random(0).randbytes(100_000)})

    assert unpack.refuses(data[: int(len(data) * share)]) == ArchiveFault.DAMAGED


@pytest.mark.parametrize("kind", WRITERS)
def test_same_name_twice(unpack: Unpacker, kind: str) -> None:
    # composed and decomposed spellings are one name
    assert unpack.refuses(WRITERS[kind]({"größe": b"", "gro\u0308ße": b""})) == ArchiveFault.DUPLICATE


@pytest.mark.parametrize("files", [{"a": b"", "a/b": b""}, {"a/b": b"", "a": b""}])
def test_file_and_folder_of_one_name(unpack: Unpacker, files: dict[str, bytes]) -> None:
    assert unpack.refuses(zip_of(files)) == ArchiveFault.DUPLICATE


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"Rar!\x1a\x07\x01", b"7z\xbc\xaf\x27\x1c", b"BZh9", bytes(1024)]
)
def test_other_kinds(unpack: Unpacker, data: bytes) -> None:
    assert sniff_archive(data) is None
    assert unpack.refuses(data) == ArchiveFault.KIND


def test_compressed_something_else(unpack: Unpacker) -> None:
    assert unpack.refuses(gzip.compress(b"not a tar" * 100)) == ArchiveFault.DAMAGED


def test_tar_under_the_name_of_a_zip(unpack: Unpacker) -> None:
    unpack.archive = unpack.archive.with_name("archive")

    assert unpack(tar_of({"a": b"x"})) == {"a": b"x"}


def test_negative_and_odd_numbers_in_tar_headers(unpack: Unpacker) -> None:
    block = bytearray(tar_of({"a": b"x"}))
    for size in (b"-0000000001\0", b"1_000000000\0", b"9\0".ljust(12, b"\0"), b"\xff" * 12):
        block[124:136] = size
        total = sum(block[:148]) + sum(block[156:512]) + 256
        block[148:156] = b"%06o\0 " % total
        assert unpack.refuses(bytes(block)) == ArchiveFault.DAMAGED


@pytest.mark.parametrize("kind", WRITERS)
def test_random_changes_never_escape(unpack: Unpacker, kind: str) -> None:
    rng = random.Random(0)
    original = WRITERS[kind](FILES)
    for attempt in range(150):
        data = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        unpack.target = unpack.outside / f"target{attempt}"
        with contextlib.suppress(ArchiveError):
            unpack(bytes(data))
    assert {path.name.rstrip("0123456789") for path in unpack.outside.iterdir()} == {"archive", "target"}
