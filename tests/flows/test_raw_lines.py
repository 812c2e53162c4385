"""Lines come out of whole, torn and damaged files alike, each fault told once."""

from __future__ import annotations

import gzip

import pytest

from mmlab.flows.raw_lines import CHUNK, Line, read_lines

TEXT = b"".join(b"%d line of a recording, number %d\n" % (i * 7919 % 1000, i) for i in range(60_000))
WHOLE = TEXT.split(b"\n")[:-1]


def lines_of(tmp_path, content: bytes) -> list[Line]:
    path = tmp_path / "a.raw"
    path.write_bytes(content)
    return list(read_lines(path))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_plain_and_gzip_files_give_the_same_lines(tmp_path, pack):
    """Told apart by their first bytes, numbered from 1; a last line without its end counts too."""
    got = lines_of(tmp_path, pack(TEXT + b"last"))
    assert [line.raw for line in got] == [*WHOLE, b"last"]
    assert [line.number for line in got] == list(range(1, len(WHOLE) + 2))
    assert not any(line.fault for line in got)


def test_the_members_of_an_appended_gzip_file_are_one_text(tmp_path):
    """Also when a member starts in the middle of a line, and with padding after the last."""
    cut = len(TEXT) // 3
    packed = gzip.compress(TEXT[:cut]) + gzip.compress(b"", mtime=0) + gzip.compress(TEXT[cut:]) + bytes(512)
    assert [line.raw for line in lines_of(tmp_path, packed)] == WHOLE


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0)])
def test_an_empty_file_has_no_lines(tmp_path, content):
    """And no fault."""
    assert lines_of(tmp_path, content) == []


@pytest.mark.parametrize("keep", [0.0001, 0.3, 0.7, 0.99999])
def test_a_gzip_file_cut_off_gives_all_its_lines_and_its_torn_end(tmp_path, keep):
    """The part of a line that it breaks in is kept as it is."""
    packed = gzip.compress(TEXT)
    assert len(packed) > CHUNK // 2
    *whole, torn = lines_of(tmp_path, packed[: int(len(packed) * keep)])
    assert [line.raw for line in whole] == WHOLE[: len(whole)]
    assert torn.fault == "torn gzip: it is cut off before its end"
    assert torn.number == len(whole) + 1
    assert TEXT.startswith(b"".join(line.raw + b"\n" for line in whole) + torn.raw)


def test_a_wrong_checksum_costs_no_line_but_is_told(tmp_path):
    """The fault is a line of its own, without bytes."""
    packed = bytearray(gzip.compress(TEXT + b"last"))
    packed[-5] ^= 1
    packed[-6] ^= 1
    *whole, fault = lines_of(tmp_path, bytes(packed))
    assert [line.raw for line in whole] == [*WHOLE, b"last"]
    assert fault == Line(len(WHOLE) + 2, b"", fault.fault)
    assert fault.fault.startswith("torn gzip:")
    assert "check" in fault.fault


def test_damage_in_the_middle_keeps_what_came_before(tmp_path):
    """zlib alone would give up the whole chunk."""
    packed = bytearray(gzip.compress(TEXT, mtime=0))
    middle = len(packed) // 2
    packed[middle : middle + 64] = b"\xff" * 64
    *whole, torn = lines_of(tmp_path, bytes(packed))
    assert torn.fault.startswith("torn gzip:")
    assert len(whole) > len(WHOLE) // 3
    assert [line.raw for line in whole[: len(WHOLE) // 3]] == WHOLE[: len(WHOLE) // 3]


def test_foreign_bytes_after_the_end_are_told(tmp_path):
    """The text before them is whole."""
    *whole, fault = lines_of(tmp_path, gzip.compress(TEXT) + b"not gzip at all")
    assert [line.raw for line in whole] == WHOLE
    assert (fault.raw, "header check" in fault.fault) == (b"", True)


def test_progress_hears_of_every_byte(tmp_path):
    """The last figure is the file's size."""
    path, heard = tmp_path / "a.raw", []
    path.write_bytes(TEXT)
    list(read_lines(path, heard.append))
    assert heard == sorted(heard)
    assert heard[-1] == len(TEXT)
