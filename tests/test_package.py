"""The package as a whole: the import rule, what the wheel holds, what the README promises, what must not be in the repository."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import stylestream
from stylestream import cli, evaluate, sources

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stylestream"
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXEMPT = ("__init__", "__main__")


def tree() -> list[str]:
    """Modules in import order, as CONTRIBUTING.md lists them."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = text.split("<!-- tree -->")[1].split("<!-- end -->")[0]
    return re.findall(r"^(\w+)\.py ", listed, re.MULTILINE)


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ("stylestream." if node.level else "") + (node.module or "")
            names |= {f"{module.rstrip('.')}.{alias.name}" for alias in node.names} | {module}
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "stylestream" and len(part) > 1 and (PACKAGE / f"{part[1]}.py").exists()}


def test_the_list_of_modules_is_complete():
    assert sorted(tree()) == sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in EXEMPT)


@pytest.mark.parametrize("module", tree())
def test_a_module_imports_only_from_those_above_it(module):
    above = set(tree()[: tree().index(module)])
    assert imported(PACKAGE / f"{module}.py") <= above | set(EXEMPT)


def test_the_import_rule_sees_an_import_inside_a_function(tmp_path):
    (tmp_path / "a.py").write_text(
        "def f():\n    from stylestream import cli\n    import stylestream.train as t\n    from .audio import load\n"
    )
    assert imported(tmp_path / "a.py") == {"cli", "train", "audio"} & {path.stem for path in PACKAGE.glob("*.py")}


NOT_SOUND = {
    "files",
    "tags",
    "midi",
    "recipes",
    "style",
    "timbre",
    "plots",
}  # a style file and a network's weights are in the key themselves


@pytest.mark.parametrize(("kind", "start"), [("network", "transfer"), ("baseline", "baselines"), ("scores", "metrics")])
def test_what_is_kept_of_an_evaluation_is_kept_for_as_long_as_all_that_made_it_stays(kind, start):
    seen: set[str] = set()
    todo = {start}
    while todo:
        module = todo.pop()
        seen.add(module)
        todo |= imported(PACKAGE / f"{module}.py") - seen - NOT_SOUND - set(EXEMPT)
    assert seen <= set(evaluate.MADE_BY[kind])


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, stylestream; sys.exit(' '.join({'torch', 'numpy', 'scipy', 'typer'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [name for name in stylestream.__all__ if name != "__version__"])
def test_every_public_name_is_there_and_documented(name):
    assert getattr(stylestream, name).__doc__
    assert name in dir(stylestream)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = stylestream.laod


def test_one_version_everywhere():
    assert importlib.metadata.version("stylestream") == stylestream.__version__
    assert f"## [{stylestream.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {stylestream.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_four_styles_are_bundled():
    bundled = {entry.name for entry in stylestream.list_styles() if entry.bundled}
    assert bundled >= {"rock", "strings", "piano", "chiptune"}


# ------------------------------------------------------------------------------------------------------------------- README


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_readme_opens_with_the_two_commands():
    first, second = blocks("bash")[0].splitlines()
    assert first.startswith("make demo ")
    assert second.startswith("make test ")
    assert README.index("```bash") < README.index("![") < README.index("```python") < README.index("stylestream transfer")


def test_the_readme_names_targets_verbs_and_files_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    verbs = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    verbs |= {group.name for group in cli.app.registered_groups}
    assert set(re.findall(r"`stylestream (\w+)", README)) <= verbs
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_readme_python_is_four_lines_that_run(tmp_path, monkeypatch, tone):
    import numpy as np
    import soundfile

    assert len(blocks("python")[0].splitlines()) == 4
    monkeypatch.chdir(tmp_path)
    soundfile.write("waltz.mp3", tone(1.0).T, 44100)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    y, sample_rate = soundfile.read("waltz-rock.wav")
    x, _ = soundfile.read("waltz.mp3")
    assert (y.shape, sample_rate) == (x.shape, 44100)
    assert np.abs(y - x).max() > 0.01


def test_the_readme_command_runs_on_a_song(tmp_path, monkeypatch, tone):
    import soundfile

    monkeypatch.chdir(tmp_path)
    soundfile.write("waltz.mp3", tone(1.0).T, 44100)
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("stylestream ")]
    assert commands
    for command in commands:
        done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert soundfile.info("waltz-rock.mp3").duration == pytest.approx(soundfile.info("waltz.mp3").duration)


# --------------------------------------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the checkout's files, as `pip wheel` would."""
    pytest.importorskip("hatchling", reason="building the wheel needs hatchling: pip install 'stylestream[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_all_of_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert modules <= names
    assert {"stylestream/py.typed", "stylestream/demo/lamplight.ogg"} <= names
    assert {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.safetensors") if path.parent.name == "styles"} <= names
    assert not [name for name in names if not name.startswith(("stylestream/", "stylestream-"))]
    assert not [name for name in names if name.endswith((".pyc", ".part"))]


def test_the_installed_wheel_works_outside_the_checkout(wheel, tmp_path, tiny_style, tone):
    import soundfile

    venv.create(
        tmp_path / "venv", symlinks=True, with_pip=False
    )  # of the tests' Python; its packages are lent, StyleStream's own files are not
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    lent = Path(soundfile.__file__).parent
    soundfile.write(tmp_path / "song.wav", tone(0.5).T, 44100)
    code = (
        f"import sys; sys.path.append({str(lent)!r})\n"
        "import stylestream.cli as cli; assert 'venv' in cli.__file__, cli.__file__\n"
        f"cli.main(['transfer', 'song.wav', '-s', {str(tiny_style)!r}])"
    )
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "song-tiny.wav\n"


# ------------------------------------------------------------------------------------------------------------ the repository


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode or not done.stdout:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_music_but_our_own_is_in_the_repository():
    suffixes = sources.SONG_SUFFIXES
    assert {path.name for path in tracked() if path.suffix.lower() in suffixes} <= {"lamplight.ogg", "lamplight.mid"}


def test_the_demo_song_is_what_its_script_composes(tmp_path):
    pytest.importorskip("symusic", reason="composing needs symusic: pip install 'stylestream[midi]'")
    code = f"import compose_demo_song as c; c.compose().dump_midi({str(tmp_path / 'a.mid')!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "examples", check=True)
    assert (tmp_path / "a.mid").read_bytes() == (PACKAGE / "demo" / "lamplight.mid").read_bytes()


def test_the_demo_song_is_long_enough_and_small_enough():
    import soundfile

    assert soundfile.info(cli.DEMO_SONG).duration >= 20
    assert cli.DEMO_SONG.stat().st_size < 1.5e6


def test_the_scripts_are_sound_shell():
    for script in (ROOT / ".ci" / "run", ROOT / "tools" / "setup", ROOT / "tools" / "system-packages"):
        assert subprocess.run(["bash", "-n", script]).returncode == 0
        assert os.access(script, os.X_OK)


def test_a_generated_block_is_filled_and_filled_again(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- generated: quality -->\n<!-- end -->\nb\n")
    for text in ("one", "two \\1"):
        (tmp_path / "table.md").write_text(f"{text}\n")
        subprocess.run([sys.executable, ROOT / "tools" / "fill", page, "quality", tmp_path / "table.md"], check=True)
        assert page.read_text() == f"a\n<!-- generated: quality -->\n\n{text}\n\n<!-- end -->\nb\n"


def test_the_readme_has_the_block_that_evaluation_fills():
    assert re.search(r"<!-- generated: quality -->\n.*<!-- end -->", README, re.DOTALL)


def test_the_cards_are_of_the_evaluation_in_the_readme():
    from stylestream.style import read_card

    table = re.search(r"^\| log-mel L1, dB .*?\n\n", README, re.DOTALL | re.MULTILINE)
    assert table is not None
    (_, *rows), _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].strip().splitlines()]
    assert len(lines) == len(list((PACKAGE / "styles").glob("*.safetensors")))
    for style, *cells in lines:
        metrics = read_card(PACKAGE / "styles" / f"{style}.safetensors").metrics
        said = {row: cell for row, cell in zip(rows[:-2], cells, strict=False) if cell}
        kept = {row if row != style else "style": f"{values['log_mel_l1']:.2f}" for row, values in metrics.items() if row != "truth"}
        assert kept == said
