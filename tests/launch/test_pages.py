"""The pages: five steps each, the token first, commands that parse; and no file that names a secret."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from sweeps.cli.main import app

ROOT = Path(__file__).parent.parent.parent
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "launch").glob("*.md")}
STEPS = {name: text for name, text in PAGES.items() if name != "README"}
FILES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "launch").rglob("*"))
    if path.is_file()
}
SHELL = [name for name, text in FILES.items() if text.startswith("#!")]
COMMAND = re.compile(
    r"(?<![\w/.-])(?:[\w./-]*/)?sweeps (run|plan|init|status|verdict|export|demo)\b([^\n`'\";)#]*)"
)


def shell_blocks(text: str) -> list[str]:
    return [
        re.sub(r"^ +", "", body, flags=re.MULTILINE)
        for body in re.findall(r"^ *```sh\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    ]


def sweeps_commands() -> list[tuple[str, str, str]]:
    """(where, verb, arguments) of every command of ours in the pages and files."""
    found = []
    for where, text in {**PAGES, **FILES}.items():
        text = re.sub(r"`sweeps (\w+)`", "", text)
        found += [(where, verb, rest.strip()) for verb, rest in COMMAND.findall(text)]
    return found


@pytest.mark.parametrize(("where", "verb", "rest"), sweeps_commands())
def test_every_command_of_ours_parses(where: str, verb: str, rest: str) -> None:
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    # A file that is generated for the sweep stands where a name stands in the page.
    command.make_context(verb, shlex.split(rest.removesuffix("...")))


def test_commands_are_found_in_every_page_and_in_the_files() -> None:
    assert {where for where, _, _ in sweeps_commands()} >= {*STEPS, "launch/ray-job/submit.sh"}


@pytest.mark.parametrize("name", STEPS)
def test_a_page_has_five_steps_and_the_token_comes_first(name: str) -> None:
    text = STEPS[name]
    steps = re.findall(r"^(\d)\. (.*?)(?=^\d\. |^## )", text, flags=re.DOTALL | re.MULTILINE)
    assert [number for number, _ in steps] == ["1", "2", "3", "4", "5"]
    assert "token" in steps[0][1]
    assert "sweeps" in steps[4][1] or "sweep.yaml" in steps[4][1]
    assert "## After a failure" in text
    assert all("```sh" in step or "EDIT:" in step for _, step in steps)


def remote_status() -> str:
    """What `ray exec` runs on the head of a cluster, to look at its sweep."""
    (command,) = re.findall(r"ray exec \S+ '(.*sweeps status.*)'", PAGES["ray-up"])
    return str(command)


@pytest.mark.parametrize("secrets", [None, "export SWEEPS_STORAGE=theirs"])
def test_a_look_at_a_sweep_from_afar_reads_the_private_file_where_there_is_one(
    tmp_path: Path, secrets: str | None
) -> None:
    """As the job does, which otherwise has its study elsewhere."""
    if secrets is not None:
        (tmp_path / ".sweeps").mkdir()
        (tmp_path / ".sweeps" / "env").write_text(secrets + "\n")
    (tmp_path / "sweeps").write_text('#!/bin/sh\necho "${SWEEPS_STORAGE:-none} $*"\n')
    (tmp_path / "sweeps").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", remote_status()],
        env={"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout == f"{'theirs' if secrets else 'none'} status {tmp_path}/runs/NAME\n"


def test_tokens_are_made_unseen_and_private() -> None:
    for name, text in {**PAGES, **FILES}.items():
        for line in text.splitlines():
            if "get-auth-token --generate" in line and name != "README":
                assert "umask 077" in line, f"{name}: {line}"
                assert ">/dev/null" in line, f"{name}: {line}"


def test_shell_blocks_are_shell() -> None:
    for name, text in PAGES.items():
        for block in shell_blocks(text):
            parsed = subprocess.run(["bash", "-n", "-c", block], capture_output=True, text=True)
            assert parsed.returncode == 0, f"{name}: {block}\n{parsed.stderr}"


@pytest.mark.parametrize("name", SHELL)
def test_scripts_are_clean(name: str) -> None:
    for checker in (["bash", "-n"], [Path(sys.executable).parent / "shellcheck"]):
        done = subprocess.run([*checker, ROOT / name], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_pages_and_files_name_each_other() -> None:
    for name, text in {**STEPS, **FILES}.items():
        for path in re.findall(r"(?<![\w/.])((?:launch|docs)/[\w./-]*\w)", text):
            assert (ROOT / path).exists(), f"{name} names {path}"
    pages = "\n".join(PAGES.values())
    assert all(name in pages or Path(name).parent.name in pages for name in FILES)
    assert all(f"({name}.md)" in PAGES["README"] for name in STEPS)


def test_what_a_user_changes_is_marked() -> None:
    for name in ("launch/slurm/sweep.sbatch", "launch/kuberay/rayjob.yaml", "launch/ray-up/cluster.yaml"):
        assert 3 <= FILES[name].count("EDIT") <= 12, name


@pytest.mark.parametrize("name", FILES)
def test_no_file_holds_a_secret_or_turns_authentication_off(name: str) -> None:
    text = FILES[name]
    assert not re.search(r"://[^\s/@]+:[^\s/@]+@", text), "a URL with a login"
    assert not re.search(r"\b[0-9a-f]{32,}\b", text), "something like a token"
    assert not re.search(r"RAY_AUTH_MODE\s*[=:]\s*[\"']?disabled|mode:\s*disabled", text)
    assert not re.search(r"^\s*value: .*(password|://)", text, flags=re.MULTILINE | re.IGNORECASE)
    assert not re.search(r"RAY_AUTH_TOKEN=|\benv_vars\s*:", text)
