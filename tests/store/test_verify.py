"""What is damaged is named by file, byte and positions; what is merely unfinished is not damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store import hint
from gateway.store.files import Files
from gateway.store.record import Kind
from gateway.store.recovery import segment_name
from gateway.store.verify import Verdict, verify
from tests.store.building import SegmentFile, contents, recovered, save_checkpoint, segments


def verified(directory: Path) -> Verdict:
    return verify(Files(), directory, lambda _: None)


def sound_store(directory: Path) -> list[SegmentFile]:
    """Three segments, the first two with hint files, and a checkpoint in the last."""
    built = segments(directory, 6, 6, 4)
    recovered(directory)
    save_checkpoint(directory, 3, built[2].offsets[1], kept=built)
    return built


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_a_sound_store_is_sound_and_stays_as_it_was(tmp_path: Path) -> None:
    built = sound_store(tmp_path)
    before = contents(tmp_path)
    read: list[int] = []
    verdict = verify(Files(), tmp_path, read.append)
    assert (verdict.lost, verdict.notes) == ([], [])
    assert (verdict.segments, verdict.messages, verdict.hints) == (3, 16, 2)
    assert read == [len(file.data) for file in built]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_record_is_named_with_its_byte_and_its_positions(tmp_path: Path, number: int) -> None:
    file = sound_store(tmp_path)[number - 1]
    flip(tmp_path / segment_name(number), file.offsets[1] + 40)
    [lost] = verified(tmp_path).lost
    assert (lost.segment, lost.offset) == (str(tmp_path / segment_name(number)), file.offsets[1])
    assert lost.offset + lost.size == file.offsets[2]
    assert (lost.first, lost.end) == (file.base, file.base + 2)


def test_the_torn_end_of_the_last_segment_is_said_and_is_no_damage(tmp_path: Path) -> None:
    file = sound_store(tmp_path)[2]
    (tmp_path / segment_name(3)).write_bytes(file.data + file.data[file.offsets[1] :][:50])
    verdict = verified(tmp_path)
    assert verdict.lost == []
    assert "50 bytes that are no whole record" in verdict.notes[0]


def test_what_the_checkpoint_knows_of_the_last_segment_cannot_be_torn(tmp_path: Path) -> None:
    built = sound_store(tmp_path)
    built[2].add(Kind.SETTLE, b"of no message: no position is missing without it", number=1)
    save_checkpoint(tmp_path, 3, len(built[2].data), kept=built)
    (tmp_path / segment_name(3)).write_bytes(built[2].data[:-5])
    [lost, *_] = verified(tmp_path).lost
    assert "the end of the file is missing or damaged" in lost.reason


def test_the_missing_end_of_a_sealed_segment_is_damage(tmp_path: Path) -> None:
    file = sound_store(tmp_path)[0]
    (tmp_path / segment_name(1)).write_bytes(file.data[: file.offsets[-1]])
    lost = verified(tmp_path).lost
    assert [(item.first, item.end) for item in lost] == [(5, 7)]


def test_a_hint_file_is_compared_with_one_made_anew(tmp_path: Path) -> None:
    built = sound_store(tmp_path)
    [first, _, _] = built
    liar = SegmentFile.begin(1, 1)
    liar.route(1, "trade.lost", [2])  # as long as the name of the real one: the size is right
    liar.messages(6)
    assert len(liar.data) == len(first.data)
    other = tmp_path / "other"
    other.mkdir()
    liar.write(other)
    built[1].write(other)
    recovered(other)
    (tmp_path / "0000000001.hint").write_bytes((other / "0000000001.hint").read_bytes())
    [lost] = verified(tmp_path).lost
    assert lost.segment == str(tmp_path / "0000000001.hint")
    assert "does not say what the segment says" in lost.reason


def test_a_hint_file_of_another_version_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound_store(tmp_path)
    monkeypatch.setattr(hint, "__version__", "99.0.0-very-new")
    assert verified(tmp_path).lost == []


def test_a_hint_file_of_an_earlier_format_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = hint.encode
    monkeypatch.setattr(hint, "encode", lambda segment, index, epoch, end: encode(segment, index, epoch, end, 2))
    sound_store(tmp_path)
    monkeypatch.undo()
    assert b'"format":2' in (tmp_path / "0000000001.hint").read_bytes()
    verdict = verified(tmp_path)
    assert (verdict.lost, verdict.hints) == ([], 2)
    assert recovered(tmp_path)[0].rebuilt == [], "it is read as it is"


def test_a_damaged_hint_file_is_named_and_a_missing_one_is_only_said(tmp_path: Path) -> None:
    sound_store(tmp_path)
    flip(tmp_path / "0000000001.hint", 200)
    (tmp_path / "0000000002.hint").unlink()
    verdict = verified(tmp_path)
    assert [(item.segment, item.first, item.end) for item in verdict.lost] == [
        (str(tmp_path / "0000000001.hint"), 1, 7)
    ]
    assert [note.partition(": ")[0] for note in verdict.notes] == [str(tmp_path / "0000000002.hint")]


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint.old"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    built = sound_store(tmp_path)
    save_checkpoint(tmp_path, 3, built[2].offsets[2], kept=built)
    flip(tmp_path / name, 20)
    [lost] = verified(tmp_path).lost
    assert (lost.segment, lost.reason) == (str(tmp_path / name), "is damaged (its CRC does not match)")


@pytest.mark.parametrize("number", [1, 2])
def test_a_segment_that_is_missing_is_named(tmp_path: Path, number: int) -> None:
    sound_store(tmp_path)
    (tmp_path / segment_name(number)).unlink()
    assert [item.reason for item in verified(tmp_path).lost] == ["is missing"]


def test_a_header_that_nobody_knows_is_damage_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    segments(tmp_path, 6, 6)
    flip(tmp_path / segment_name(1), 50)
    verdict = verified(tmp_path)
    assert [item.reason for item in verdict.lost] == ["its header is damaged"]
    assert verdict.segments == 1


def test_a_segment_of_another_store_is_named(tmp_path: Path) -> None:
    [file] = segments(tmp_path, 6)
    SegmentFile.begin(2, file.end, epoch="feedface").write(tmp_path)
    assert "belongs to another store" in verified(tmp_path).lost[0].reason


def test_a_segment_that_is_about_to_begin_is_passed_over(tmp_path: Path) -> None:
    sound_store(tmp_path)
    (tmp_path / segment_name(4)).write_bytes(b"")
    assert verified(tmp_path).lost == []


def test_where_there_is_no_store_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store in it"):
        verified(tmp_path)
    with pytest.raises(StoreError, match="--data"):
        verified(tmp_path / "nowhere")


def test_strangers_and_what_others_have_rights_to_are_noted(tmp_path: Path) -> None:
    sound_store(tmp_path)
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    (tmp_path / "README").write_text("?")
    (tmp_path / "0000000002.hint").chmod(0o604)
    verdict = verified(tmp_path)
    assert verdict.lost == []
    assert verdict.notes == [
        f"{tmp_path / 'README'}: is not a file of the store",
        f"{tmp_path / '0000000002.hint'}: others than the owner have rights to it",
    ]
