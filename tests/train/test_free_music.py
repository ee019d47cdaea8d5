"""Music out of Debian packages: what is taken, converted, written down, kept apart and left out."""

import io
import json
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import soundfile

from earvae_jax.errors import UserError
from earvae_jax.train.data.recordings import find
from earvae_jax.train.free_music import debian, debian_copyright
from earvae_jax.train.free_music import fetch as free_music
from earvae_jax.train.free_music.debian_copyright import parse, terms_of

RATE = 8000
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb here")
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: game

Files: *
Copyright: 2001, Somebody
License: GPL-2+

Files: base/music/late.ogg
 data/music/song?one.ogg
Copyright: 2002, A. Composer <a@example.org>
  2003, B. Composer
License: CC-BY-SA-3.0
 The text of it.

License: GPL-2+
 On Debian systems ...
"""


def sound(seed: int, seconds: float = 1.0, channels: int = 2, format: str = "OGG") -> bytes:
    noise = 0.1 * np.random.default_rng(seed).standard_normal((round(seconds * RATE), channels))
    data = io.BytesIO()
    soundfile.write(data, noise, RATE, format=format)
    return data.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


@pytest.fixture
def package(tmp_path):
    """Builds a package of some files."""

    def build(name: str, files: dict[str, bytes], copyright: str | None = COPYRIGHT) -> str:
        root = tmp_path / f"{name}_root"
        files = dict(files)
        if copyright is not None:
            files[f"usr/share/doc/{name}/copyright"] = copyright.encode()
        control = f"Package: {name}\nVersion: 1:2.0-3\nArchitecture: all\n"
        control += "Maintainer: Nobody <nobody@example.org>\nDescription: a game\n"
        files["DEBIAN/control"] = control.encode()
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        file = tmp_path / f"{name}.deb"
        words = ["dpkg-deb", "--build", "--root-owner-group", str(root), str(file)]
        subprocess.run(words, check=True, capture_output=True)
        return str(file)

    return build


def fetched(out, *packages, options=()):
    return free_music.main(
        [
            str(out),
            "--sample-rate",
            str(2 * RATE),
            "--minimum-seconds",
            "0.5",
            *options,
            "--packages",
            *packages,
        ]
    )


def manifest(out):
    return json.loads((out / "manifest.json").read_text())


@needs_dpkg
def test_the_music_of_a_package(package, tmp_path, capsys):
    archive = zipped({"music/late.ogg": sound(1), "sound/bang.ogg": sound(2), "music/readme.txt": b"no"})
    game = package(
        "some-game",
        {
            "usr/share/games/game/data/music/song one.ogg": sound(3, channels=1),
            "usr/share/games/game/data/music/short.ogg": sound(4, seconds=0.3),
            "usr/share/games/game/data/music/a.b.wav": sound(5, format="WAV"),
            "usr/share/games/game/data/sounds/voice.ogg": sound(6, seconds=2),
            "usr/share/games/game/base/0music.pk3": archive,
        },
    )
    out = tmp_path / "out"
    assert fetched(out, game) == 0
    files = {file["source"].rpartition("/")[2]: file for file in manifest(out)["files"]}
    assert set(files) == {"song one.ogg", "a.b.wav", "late.ogg"}
    late, song, other = files["late.ogg"], files["song one.ogg"], files["a.b.wav"]
    assert late["source"] == "usr/share/games/game/base/0music.pk3/music/late.ogg"
    assert late["file"] == "train/some-game/base/0music.pk3/music/late.flac"
    assert late["licence"] == song["licence"] == "CC-BY-SA-3.0" and other["licence"] == "GPL-2+"
    assert late["authors"] == ["2002, A. Composer <a@example.org>", "2003, B. Composer"]
    assert {(f["package"], f["version"], f["split"]) for f in files.values()} == {
        ("some-game", "1:2.0-3", "train")
    }
    assert song["channels"] == 1 and late["channels"] == 2
    for file in files.values():
        info = soundfile.info(out / file["file"])
        assert (info.format, info.samplerate, info.channels) == ("FLAC", 2 * RATE, file["channels"])
        assert file["seconds"] == pytest.approx(1.0, abs=1e-3) == info.duration
    folder = out / "train/some-game"
    assert (folder / "copyright").read_text() == COPYRIGHT
    assert len(find((str(out / "train"),), "data.train")) == 3  # as training finds it
    left = {path.name for path in folder.iterdir()}
    assert left == {"base", "data", "copyright", "files.json"}, (
        "the package and what it was unpacked to are gone"
    )
    assert "| train | some-game | 1:2.0-3 | 3 | 0.00 | CC-BY-SA-3.0, GPL-2+ |" in capsys.readouterr().out


@needs_dpkg
def test_what_is_written_is_what_was_there(package, tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal((RATE, 2))
    samples[100] = 1.5  # as lossy files can be
    data = io.BytesIO()
    soundfile.write(data, samples, RATE, format="WAV", subtype="FLOAT")
    game = package("some-game", {"usr/share/a.wav": data.getvalue()})
    assert free_music.main([str(tmp_path / "out"), "--sample-rate", "8000", "--minimum-seconds", "0",
                            "--packages", game]) == 0  # fmt: skip
    (file,) = manifest(tmp_path / "out")["files"]
    written, rate = soundfile.read(tmp_path / "out" / file["file"])
    assert rate == RATE and file["clipped"] == 2
    np.testing.assert_allclose(written, np.clip(samples, -1, 1), atol=2**-15)


@needs_dpkg
def test_the_same_command_again_does_nothing(package, tmp_path, monkeypatch):
    game = package("some-game", {"usr/share/a.ogg": sound(1)})
    out = tmp_path / "out"
    assert fetched(out, game) == 0
    before = (out / "manifest.json").read_text()
    monkeypatch.setattr(debian, "unpack", lambda *_: pytest.fail("unpacked again"))
    assert fetched(out, game) == 0
    assert (out / "manifest.json").read_text() == before


@needs_dpkg
def test_an_interrupted_package_is_made_whole(package, tmp_path, monkeypatch):
    game = package("some-game", {"usr/share/a.ogg": sound(1), "usr/share/b.ogg": sound(2)})
    out, convert = tmp_path / "out", free_music.convert

    def stop(path, target, *rest):
        if target.name == "b.flac":
            raise KeyboardInterrupt
        return convert(path, target, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(free_music, "convert", stop)
        fetched(out, game)
    assert not list((out / "train").iterdir())
    assert fetched(out, game) == 0 and len(manifest(out)["files"]) == 2


@needs_dpkg
def test_other_settings_are_refused(package, tmp_path, caplog):
    game = package("some-game", {"usr/share/a.ogg": sound(1)})
    assert fetched(tmp_path / "out", game) == 0
    assert fetched(tmp_path / "out", game, options=("--sample-rate", "9000")) == 1
    assert "was made with other settings" in caplog.text


@needs_dpkg
@pytest.mark.parametrize("judge_first", [False, True])
def test_no_piece_is_in_two_splits(package, tmp_path, judge_first):
    same, wrapped = sound(1), sound(1, format="WAV")
    train = package(
        "some-game", {"usr/share/a.ogg": same, "usr/share/b.ogg": sound(2), "usr/share/w.wav": wrapped}
    )
    held = package("singularity-music", {"usr/share/other name.ogg": same, "usr/share/c.ogg": sound(3)})
    judge = package("asc-music", {"usr/share/d.ogg": sound(2), "usr/share/e.ogg": sound(4)})
    out, order = tmp_path / "out", [train, held, judge]
    for file in reversed(order) if judge_first else order:
        assert fetched(out, file, options=("--judge",)) == 0
    result = manifest(out)
    names = {file["file"] for file in result["files"]}
    assert names == {
        "train/some-game/w.flac",
        "held_out/singularity-music/other name.flac",
        "held_out/singularity-music/c.flac",
        "judge/asc-music/d.flac",
        "judge/asc-music/e.flac",
    }
    assert names == {path.relative_to(out).as_posix() for path in out.rglob("*.flac")}
    assert {file["same_as"] for file in result["left_out"]} == {
        "held_out/singularity-music/other name.flac",
        "judge/asc-music/d.flac",
    }


@needs_dpkg
def test_judges_are_never_fetched_unasked(package, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(debian, "resolve", lambda name: name)
    monkeypatch.setattr(debian, "download", lambda *_: pytest.fail("downloaded"))
    judge = package("asc-music", {"usr/share/d.ogg": sound(2)})
    assert fetched(tmp_path / "out", judge) == 1
    assert "pass --judge to fetch it" in caplog.text and not list((tmp_path / "out").rglob("*.flac"))
    free_music.main([str(tmp_path / "out"), "--packages", "asc-music"])
    assert not list((tmp_path / "out").rglob("*.flac"))


@needs_dpkg
def test_what_cannot_be_used_fails_alone(package, tmp_path, caplog):
    none = package("silent-game", {"usr/share/a.txt": b""})
    unknown = package("unknown-game", {"usr/share/a.ogg": sound(1)}, copyright=None)
    broken = package("broken-game", {"usr/share/a.zip": b"no archive"})
    good = package("good-game", {"usr/share/a.ogg": sound(1), "usr/share/b.ogg": b"no audio"})
    (tmp_path / "bad.deb").write_bytes(b"no package")
    out = tmp_path / "out"
    assert fetched(out, none, unknown, broken, str(tmp_path / "bad.deb"), str(tmp_path / "no.deb"), good) == 1
    assert [file["file"] for file in manifest(out)["files"]] == ["train/good-game/a.flac"]
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == 5 and not any("\n" in line for line in lines)
    for line, words in zip(
        lines,
        ("holds no music", "has no copyright", "not a readable archive", "bad.deb", "no such package file"),
        strict=True,
    ):
        assert words in line


def test_without_debian(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert free_music.main([str(tmp_path / "out")]) == 2
    assert "this needs Debian or Ubuntu" in caplog.text


def test_names_by_release(monkeypatch):
    known = "wesnoth-1.9-music\nwesnoth-1.16-music\nwesnoth-music\n"
    monkeypatch.setattr(debian, "_output", lambda *words, **_: known if words[-1] == "wesnoth-" else "")
    assert debian.resolve("wesnoth-*-music") == "wesnoth-1.16-music"
    assert debian.resolve("no-such-music") is None


def test_packages_that_a_release_lacks(monkeypatch, tmp_path, caplog):
    asked = []
    monkeypatch.setattr(debian, "resolve", lambda name: name if name == "nexuiz-music" else None)
    monkeypatch.setattr(free_music, "fetch", lambda name, *_, **__: asked.append(name))
    assert free_music.main([str(tmp_path)]) == 0, "the default list is for every release"
    assert asked == ["nexuiz-music"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "ufoai-music" in line and "wesnoth-*-music" in line
    assert free_music.main([str(tmp_path), "--packages", "nexuiz-music", "other"]) == 1
    assert free_music.main([str(tmp_path), "--packages", "other"]) == 2


def test_no_judge_is_trained_on():
    for name in ("asc-music", "hyperrogue-music", "planetblupi-music-ogg", "drascula-music", "fb-music-high"):
        assert free_music.split_of(name) == "judge"
    assert free_music.split_of("wesnoth-1.18-music") == free_music.split_of("new-music") == "train"


@pytest.mark.parametrize(
    "path,licence",
    [
        ("usr/share/games/game/data/a.ogg", "all"),
        ("usr/share/games/game/music/a.ogg", "moved"),  # base/music/a.ogg, installed elsewhere
        ("usr/share/games/game/other/a.ogg", "all"),  # of the same name alone
        ("usr/share/game/Data/Sounds/x/y.ogg", "folder"),
        ("usr/share/game/themes/one/[x].ogg", "brackets"),
    ],
)
def test_the_last_stanza_about_a_file_counts(path, licence):
    stanzas = [("*", "all"), ("base/music/a.ogg", "moved"), ("share/game/Data/Sounds/*", "folder"),
               ("a/*/*.png", "never"), ("themes/*/[x].ogg", "brackets")]  # fmt: skip
    stanzas = [debian_copyright.Terms((pattern,), name, ()) for pattern, name in stanzas]
    assert terms_of(path, stanzas).licence == licence


def test_prose_names_no_licence():
    assert parse("This package was debianized by somebody.\n\nFiles: *\nLicense: GPL\n") == []
    assert terms_of("a.ogg", []) is None


def test_fetching_says_what_apt_says(monkeypatch, tmp_path):
    def fail(*_, **__):
        return subprocess.CompletedProcess([], 100, "", "W: sandbox\nE: Unable to fetch some archives\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(UserError, match=r"^game: cannot be downloaded \(Unable to fetch some archives\)"):
        debian.download("game", tmp_path)
