"""A damaged checkpoint is named and passed over, or the run stops; nothing hostile is run or waited for."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.utils.training.checkpoints import FILES, Warnings, assert_reads, flip, write
from utils.errors import UserError
from utils.training import checkpoint
from utils.training.checkpoint import newest

DAMAGE = {
    "truncated-to-nothing": lambda path: path.write_bytes(b""),
    "truncated-by-half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "truncated-by-a-byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer-by-a-byte": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "first-bit-flipped": lambda path: flip(path, 0),
    "middle-bit-flipped": lambda path: flip(path, path.stat().st_size // 2, 3),
    "last-bit-flipped": lambda path: flip(path, -1),
    "removed": lambda path: path.unlink(),
    "turned-into-a-folder": lambda path: (path.unlink(), path.mkdir()),
    "dangling-link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_passed_over_with_a_warning(tmp_path, file, damage):
    bad = write(tmp_path, 1, 2)
    damage(bad / file)
    assert_reads(tmp_path, 1, passed_over=[bad])


@pytest.mark.parametrize("file", FILES)
def test_a_warning_is_one_line(tmp_path, file):
    bad = write(tmp_path, 1, 2)
    (bad / file).write_bytes(b"\xff\n\xfe")
    said = Warnings()
    newest(tmp_path, said)
    assert len(said) == 1
    assert "\n" not in said[0]


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_in_any_byte_is_found(tmp_path, file):
    bad = write(tmp_path, 1, 2)
    data = (bad / file).read_bytes()
    for position in range(len(data)):
        flip(bad / file, position, position % 8)
        assert newest(tmp_path, Warnings()).state.step == 1, f"bit {position % 8} of byte {position}"
        (bad / file).write_bytes(data)
    assert_reads(tmp_path, 2)


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_anywhere_is_found(tmp_path, file):
    bad = write(tmp_path, 1, 2)
    data = (bad / file).read_bytes()
    for length in range(0, len(data), 3):
        (bad / file).write_bytes(data[:length])
        assert newest(tmp_path, Warnings()).state.step == 1, f"cut to {length} bytes"


@pytest.mark.parametrize(
    "manifest",
    [
        "", "{", "{}", "[]", "null", "5", '"text"', '["state.json"]', '{"state.json": null}', '{"state.json": {}}',
        '{"state.json": {"size": 1}}', '{"": {"size": 0, "sha256": ""}}', '{"absent": {"size": 0, "sha256": ""}}',
        '{"a\\u0000b": {"size": 0, "sha256": ""}}', "\x00\x00",
    ],
)  # fmt: skip
def test_a_manifest_of_garbage(tmp_path, manifest):
    bad = write(tmp_path, 1, 2)
    (bad / "manifest.json").write_text(manifest)
    assert_reads(tmp_path, 1, passed_over=[bad])


def write_state(path: Path, text: bytes) -> None:
    """Put another state into a checkpoint, and into its manifest."""
    (path / "state.json").write_bytes(text)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["state.json"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("text", [b"{}", b"[]", b'{"step": "2"}', b'{"step": 2, "sizes": 1}', b'{"step": 3}'])
def test_a_state_of_wrong_names_or_types_is_passed_over(tmp_path, text):
    """Whole by its sum, and not what such a folder holds: written by something else."""
    bad = write(tmp_path, 1, 2)
    write_state(bad, text)
    assert_reads(tmp_path, 1, passed_over=[bad])


OUTSIDE = ["/etc/hostname", "../secret.safetensors", "sub/a.safetensors", "..", ".", "state.json/", "state.json\n"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_names_no_file_outside_of_its_folder(tmp_path, monkeypatch, name):
    bad = write(tmp_path, 1, 2)
    data = b"secret"
    (tmp_path / "secret.safetensors").write_bytes(data)
    (bad / "sub").mkdir()
    (bad / "sub/a.safetensors").write_bytes(data)
    manifest = json.loads((bad / "manifest.json").read_text())
    manifest[name] = {"size": 6, "sha256": hashlib.sha256(data).hexdigest()}
    (bad / "manifest.json").write_text(json.dumps(manifest))
    original, read = checkpoint._content, []
    monkeypatch.setattr(checkpoint, "_content", lambda path, *size: read.append(path.name) or original(path, *size))
    assert_reads(tmp_path, 1, passed_over=[bad])
    assert set(read) == set(FILES)


HOSTILE = {
    "a-pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a-link-to-a-pipe": lambda path: (path.unlink(), os.mkfifo(path.parent / "pipe"), path.symlink_to("pipe")),
    "a-device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "a-link-to-itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a-file-without-end": lambda path: os.truncate(path, 2**40),
    "nested-lists": lambda path: path.write_bytes(b"[" * 10**5),
    "nested-sections": lambda path: path.write_bytes(b'{"a":' * 10**5),
    "a-number-of-many-digits": lambda path: path.write_bytes(b'{"step": ' + b"9" * 10**4 + b"}"),
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_regular_file_of_its_size_is_not_read(tmp_path, file, spoil):
    """Neither to wait for a pipe nor to read a device, and no endless file into memory."""
    bad = write(tmp_path, 1, 2)
    spoil(bad / file)
    if (bad / file).is_file() and file == "state.json" and (bad / file).stat().st_size < 2**20:
        write_state(bad, (bad / file).read_bytes())  # whole by its sum
    assert_reads(tmp_path, 1, passed_over=[bad])


@pytest.mark.parametrize("size", [None, "6", True, 6.0, -1, [6]])
@pytest.mark.parametrize("digest", [None, 7, []])
def test_a_manifest_of_wrong_types(tmp_path, size, digest):
    bad = write(tmp_path, 1, 2)
    (bad / "manifest.json").write_text(json.dumps({"state.json": {"size": size, "sha256": digest}}))
    assert_reads(tmp_path, 1, passed_over=[bad])


def test_a_state_of_a_later_format_stops_the_run(tmp_path):
    """Going on from an older checkpoint would set the newer ones aside."""
    later = write(tmp_path, 1, 2)
    write_state(later, b'{"step": 2, "format": 99}')
    with pytest.raises(UserError, match="format 99"):
        newest(tmp_path, Warnings())


PASSING = [errno.EIO, errno.EACCES, errno.ESTALE, errno.EPERM, errno.EINTR, errno.ENFILE, errno.ETIMEDOUT]


@pytest.mark.parametrize("code", PASSING, ids=errno.errorcode.get)
@pytest.mark.parametrize("what", [*FILES, "the-folder", "the-folder-of-all"])
def test_what_cannot_be_read_at_present_is_no_damage(tmp_path, monkeypatch, code, what):
    """A disk, or rights, may come back: neither is an older checkpoint used nor is anyone told to remove one."""
    folder = tmp_path / "checkpoints"
    path = write(folder, 1, 2)

    def failing(original):
        def call(where, *arguments, **options):
            if Path(where) == {"the-folder": path, "the-folder-of-all": folder}.get(what, path / what):
                raise OSError(code, os.strerror(code), str(where))
            if what == "the-folder" and Path(where).parent == path:
                raise OSError(code, os.strerror(code), str(where))
            return original(where, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "scandir", "stat"):
            patch.setattr(os, name, failing(getattr(os, name)))
        said = Warnings()
        with pytest.raises(UserError, match=r"cannot be read at present .* give the same command again") as caught:
            newest(folder, said)
        assert said == []
        assert str(path if what in FILES else folder) in str(caught.value)
        assert "remove" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert_reads(folder, 2)


def test_an_empty_folder_of_a_step_is_passed_over(tmp_path):
    write(tmp_path, 1)
    bad = tmp_path / "step-00000002"
    bad.mkdir()
    assert_reads(tmp_path, 1, passed_over=[bad])


def test_several_bad_ones_are_all_named_the_newest_first(tmp_path):
    write(tmp_path, 1, 2, 3, keep=3)
    bad = [tmp_path / f"step-0000000{step}" for step in (3, 2)]
    for path in bad:
        (path / "state.json").unlink()
    assert_reads(tmp_path, 1, passed_over=bad)


def test_no_good_one_is_an_error_and_not_a_new_start(tmp_path):
    write(tmp_path, 1, 2)
    for path in tmp_path.iterdir():
        flip(path / "generator.safetensors", -1)
    said = Warnings()
    with pytest.raises(UserError) as caught:
        newest(tmp_path, said)
    text = str(caught.value)
    assert len(said) == 2
    assert "2 checkpoints" in text
    assert str(tmp_path) in text
    assert "\n" not in text
