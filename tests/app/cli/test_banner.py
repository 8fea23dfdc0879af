"""What a start prints: nothing that does not work, and nothing that must not be kept."""

from pathlib import Path

import pytest

from app.cli.banner import print_banner

URL = "http://127.0.0.1:8000"


def printed(
    capsys: pytest.CaptureFixture[str],
    models: list[str],
    chat_model: str | None,
    *,
    in_journal: bool = False,
) -> str:
    print_banner(URL, None, models, Path("/d"), chat_model=chat_model, in_journal=in_journal)
    return capsys.readouterr().out


def test_the_example_asks_a_model_that_chats(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, ["acme/encoder", "acme/chat"], "acme/chat")
    assert '"model": "acme/chat"' in said
    assert 'model="acme/chat"' in said
    assert "model           acme/encoder" in said


def test_without_one_there_is_no_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert "curl" not in printed(capsys, ["acme/encoder"], None)


def test_without_any_model_it_says_what_to_add(capsys: pytest.CaptureFixture[str]) -> None:
    assert "add [[providers]] or [[local.models]] to the configuration" in printed(capsys, [], None)


def test_models_that_wait_for_their_files_are_not_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_banner(URL, None, [], Path("/d"), chat_model=None, absent=["acme/far"])
    said = capsys.readouterr().out
    assert "acme/far: its files are not here" in said
    assert "none" not in said


def test_the_journal_gets_no_example(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, ["acme/chat"], "acme/chat", in_journal=True)
    assert "curl" not in said
    assert "keys create --user owner" in said
