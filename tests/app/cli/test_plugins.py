"""``turnpike plugins list`` and ``check``."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugins.builtin import BUILTIN
from plugins.conformance import CHECKS
from plugins.contract import CONTRACT_VERSION
from plugins.drop_in import digest_of
from tests.app.cli.terminal import Inside
from tests.plugins.acme import KEY, SOURCE, PlayedAcme
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.replicate import PlayedReplicate
from tests.upstreams.scenes import Scene

LISTED = (
    "PROVIDED = __import__('plugins.echo.plugin').echo.plugin.PLUGIN\n"
    "PLUGIN = __import__('msgspec').structs.replace(PROVIDED, name='mine', title='Mine')\n"
)


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.startswith("turnpike_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path, config_file: Path) -> Path:
    """Two allowed files, one of which was changed, and one that nobody has allowed."""
    made = tmp_path / "plugins"
    made.mkdir()
    made.chmod(0o755)
    for name, source in {"mine.py": LISTED, "old.py": LISTED, "new.py": "1/0"}.items():
        (made / name).write_text(source)
        (made / name).chmod(0o644)
    lines = [f'"{name}" = "{digest_of(LISTED.encode())}"' for name in ("mine.py", "old.py")]
    with config_file.open("a") as file:
        file.write(f"[plugins]\nfolder = {str(made)!r}\n[plugins.allow]\n" + "\n".join(lines))
    (made / "old.py").write_text(LISTED + "# more\n")
    return made


def results(found: list[dict[str, Any]]) -> dict[str, str]:
    return {each["rule"]: each["result"] for each in found}


async def check(
    inside: Inside, *arguments: str
) -> tuple[int, list[dict[str, Any]], subprocess.CompletedProcess[str]]:
    """The exit status and the findings, from a thread of its own: the played one is in this."""
    done = await asyncio.to_thread(inside.run, "plugins", "check", *arguments, "--json")
    return done.returncode, msgspec.json.decode(done.stdout or "[]"), done


def test_all_shipped_plugins_are_listed(inside: Inside) -> None:
    lines = [line.split("\t") for line in inside.out("plugins", "list").splitlines()]
    assert lines[0] == ["NAME", "TITLE", "SOURCE", "CONTRACT", "NEEDS_KEY", "BASE_URL"]
    assert [line[0] for line in lines[1:]] == sorted(plugin.name for plugin in BUILTIN)
    assert ["echo", "Echo", "shipped", str(CONTRACT_VERSION), "no", "-"] in lines
    groq = next(line for line in lines if line[0] == "groq")
    assert groq[4:] == ["yes", "https://api.groq.com/openai/v1"]
    listed = inside.json("plugins", "list")
    assert listed["files"] == []
    assert not inside.data_dir.exists()


def test_files_are_listed_with_what_to_write(inside: Inside, folder: Path) -> None:
    new, changed = digest_of(b"1/0"), digest_of((folder / "old.py").read_bytes())
    listed = inside.json("plugins", "list")
    (mine,) = [each for each in listed["plugins"] if each["name"] == "mine"]
    assert (mine["source"], mine["title"]) == ("drop-in", "Mine")
    assert mine["where"] == str(folder / "mine.py")
    assert [(f["file"], f["allowed"], f["problem"]) for f in listed["files"]] == [
        ("mine.py", True, ""),
        ("new.py", False, ""),
        ("old.py", False, "changed since it was allowed"),
    ]
    text = inside.out("plugins", "list")
    assert "FILE\tALLOWED\tSHA-256\tPROBLEM\n" in text
    assert text.endswith(f'\n[plugins.allow]\n"new.py" = "{new}"\n"old.py" = "{changed}"\n')


def test_a_listed_file_that_fails_is_told_and_the_rest_still_listed(
    inside: Inside, folder: Path, config_file: Path
) -> None:
    with config_file.open("a") as file:
        file.write(f'\n"new.py" = "{digest_of(b"1/0")}"\n"gone.py" = "{digest_of(b"")}"\n')
    files = {each["file"]: each for each in inside.json("plugins", "list")["files"]}
    assert "line 1: ZeroDivisionError" in files["new.py"]["problem"]
    assert "not there" in files["gone.py"]["problem"]
    assert "gone.py: not there" in inside.refused("plugins", "check", "mine", "--model", "m")


def test_a_folder_that_cannot_be_used_is_told(inside: Inside, folder: Path) -> None:
    folder.chmod(0o777)
    assert "other accounts can write to it" in inside.refused("plugins", "list")


async def test_a_file_is_held_against_the_rules(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    (tmp_path / "acme.py").write_text(SOURCE)
    typed = [str(tmp_path / "acme.py"), "--model", "big-1", "--api-key", "env:ACME_KEY"]
    async with PlayedAcme() as played:
        status, found, done = await check(inside, *typed, "--base-url", played.origin)
        asked = len(played.asked)
        quick, left_out, _ = await check(inside, *typed, "--base-url", played.origin, "--quick")
    assert (status, done.stderr) == (0, "")
    assert list(results(found)) == ["it_starts", *(c.__name__ for c in CHECKS), "it_closes"]
    assert set(results(found).values()) == {"ok", "skipped"}
    assert all(bool(each["reason"]) == (each["result"] == "skipped") for each in found)
    assert results(found)["failures_are_adapter_errors"] == "ok"
    assert results(found)["each_call_brings_its_own_key"] == "skipped"
    assert all(each["says"].endswith(".") for each in found)
    assert asked <= 30
    assert len(played.asked) - asked <= 10
    assert quick == 0
    assert results(left_out)["calls_run_side_by_side"] == "skipped"
    assert not inside.data_dir.exists()


async def test_a_key_is_shown_nowhere(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_KEY", "wrong-key-0123456789")
    leaky = SOURCE.replace("raise refusal(", "raise ValueError(call.api_key) or (")
    for source, result in ((SOURCE, "auth: "), (leaky, "ValueError: [key]")):
        (tmp_path / "acme.py").write_text(source)
        async with PlayedAcme() as played:
            typed = [str(tmp_path / "acme.py"), "--model", "big-1", "--api-key", "env:ACME_KEY"]
            status, found, done = await check(inside, *typed, "--base-url", played.origin)
        reasons = {each["rule"]: each["reason"] for each in found}
        assert status == 1
        assert result in reasons["whole_answer_keeps_the_order"]
        assert "wrong-key" not in done.stdout + done.stderr
        if source is SOURCE:
            assert reasons["usage_is_counted"] == "the provider failed before (auth)"
            assert len(played.asked) == 1


async def test_a_shipped_plugin_with_tools_and_settings(inside: Inside) -> None:
    async with PlayedProvider(choose=_tools) as played:
        typed = ["openai_compatible", "--model", "m", "--base-url", played.base_url, "--tools"]
        status, found, _ = await check(
            inside, *typed, "--setting", 'headers={"x-team":"red"}', "--param", "temperature=0"
        )
    assert status == 0, found
    assert results(found)["tool_calls_are_whole"] == "ok"
    assert results(found)["listed_models_are_well_formed"] == "ok"
    chats = played.books
    assert {book.headers["x-team"] for book in chats} == {"red"}
    assert {book.request["temperature"] for book in chats} == {0}
    assert {book.request["max_tokens"] for book in chats} == {512}


def _tools(request: dict[str, Any]) -> Scene | str | None:
    return "tools" if "tools" in request else None


async def test_another_task(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("r8Zq3f9aOfTheAppliance\n")
    async with PlayedReplicate() as played:
        typed = ["replicate", "--model", "acme/model", "--base-url", played.serving.origin]
        typed += ["--task", "text-to-image", "--api-key", f"file:{tmp_path / 'key'}", "--quick"]
        status, found, _ = await check(inside, *typed, "--setting", "poll_first_s=0.01")
    assert status == 0, found
    assert results(found)["the_order_is_kept"] == "ok"
    assert {work.payload["input"]["prompt"] for work in played.works} >= {"A red circle on white."}


@pytest.mark.parametrize(
    "task",
    ["feature-extraction", "text-ranking", "image-to-image", "text-to-speech", "text-to-video"],
)
def test_a_task_that_a_plugin_does_not_serve_fails_without_a_trace(
    inside: Inside, task: str
) -> None:
    done = inside.run("plugins", "check", "echo", "--model", "m", "--task", task)
    assert (done.returncode, done.stderr) == (1, "")
    assert "the_order_is_kept\tfailed\tnot_found: this provider serves chats only" in done.stdout


def test_what_is_typed_wrong_is_told(inside: Inside, tmp_path: Path) -> None:
    for typed, words in {
        ("nope", "--model", "m"): (1, "no plugin 'nope'; there are: anthropic"),
        ("groq", "--model", "m"): (2, "groq needs a key: --api-key env:NAME"),
        ("groq", "--model", "m", "--api-key", "sk-secret"): (1, "found a literal value"),
        ("groq",): (2, "--model"),
        ("echo", "--model", "m", "--setting", "x"): (2, "expected NAME=VALUE"),
        ("echo", "--model", "m", "--param", "colour=red"): (2, "no parameter 'colour'"),
        ("echo", "--model", "m", "--param", "temperature=9"): (2, "temperature"),
        (str(tmp_path / "gone.py"), "--model", "m"): (1, "not there"),
    }.items():
        status, told = words
        said = inside.refused("plugins", "check", *typed, status=status)
        assert told in said
        assert "sk-secret" not in said
    bad = inside.run("plugins", "check", "echo", "--model", "m", "--setting", "colour=red")
    assert (bad.returncode, bad.stderr) == (1, "")
    assert "it_starts\tfailed\tValidationError: Object contains unknown field" in bad.stdout


def test_a_person_sees_a_table_and_the_sums(inside: Inside) -> None:
    shown = inside.on_terminal("plugins", "check", "echo", "--model", "m")
    assert "whole_answer_keeps_the_order" in shown
    assert " ok, 0 failed, " in shown
