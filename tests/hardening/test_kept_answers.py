"""What stays on disk when a run is killed, or when several share a folder: nothing is lost, nothing is paid for twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_server import TEXT, FakeServer, Reply, delta, endpoint, good, serving, stream, then, wait_for

from clozeline.errors import InputError
from clozeline.hardening.answers import Answer
from processes import environment

ASK = """
import sys
from pathlib import Path
from clozeline.hardening.endpoint import Endpoint, EndpointSettings
url, folder, *prompts = sys.argv[1:]
asking = Endpoint(EndpointSettings(url, "tiny-llm", timeout=20), Path(folder))
for prompt in prompts:
    answer = asking.ask(prompt, 0)
    print(f"{answer.cached} {answer.cut} {answer.text}", flush=True)
"""


def child(server: FakeServer, folder: Path, *prompts: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", ASK, server.url, str(folder), *prompts]
    return subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, text=True)


def journalled(folder: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.part"))


def test_what_came_before_kill_9_is_the_answer(tmp_path: Path) -> None:
    replies = {"first": good("one"), "second": Reply([delta("two, "), delta("thr"), delta("")], hangs=True)}
    with serving(lambda asked, earlier: replies.get(asked[0], good("four"))) as server:
        with child(server, tmp_path, "first", "second") as killed:
            wait_for(lambda: "thr" in journalled(tmp_path))
            killed.kill()
        asking = endpoint(server, tmp_path)
        given = [asking.ask(prompt, 0) for prompt in ("first", "second", "third", "second")]
        assert [server.times((prompt, 0)) for prompt in ("first", "second", "third")] == [1, 1, 1]
    assert [each.text for each in given] == ["one", "two, thr", "four", "two, thr"]
    assert [each.cut for each in given] == [False, True, False, True]
    assert [each.cached for each in given] == [True, True, False, True]
    spent = asking.spent()
    assert (spent.now.answers, spent.before.answers, spent.before.cut, spent.before.uncounted) == (1, 2, 1, 1)
    assert not list(tmp_path.glob("*.part"))


def test_a_journal_that_ends_in_the_middle_of_a_line_gives_the_lines_before(tmp_path: Path) -> None:
    with serving(then(Reply([delta("a"), delta("b")], hangs=True), good("again"))) as server:
        with child(server, tmp_path, "hello") as killed:
            wait_for(lambda: '"b"' in journalled(tmp_path))
            killed.kill()
        (part,) = tmp_path.glob("*.part")
        content = part.read_bytes()
        for end, (text, cut) in {b'"c': ("ab", True), b"\0\0\n\xff": ("ab", True)}.items():
            part.write_bytes(content + end)
            answer = endpoint(server, tmp_path).ask("hello", 0)
            assert (answer.text, answer.cut) == (text, cut)
            (tmp_path / f"{part.stem}.json").unlink()
        part.write_bytes(b'"torn')  # nothing whole came: asked again
        answer = endpoint(server, tmp_path).ask("hello", 0)
        assert (answer.text, answer.cut, answer.cached) == ("again", False, False)


def test_processes_that_share_a_folder_pay_once(tmp_path: Path) -> None:
    prompts = [f"prompt {number}" for number in range(6)]
    with serving(lambda asked, earlier: Reply(stream(f"{asked[0]}, {earlier} before"), pause=0.01)) as server:
        running = [child(server, tmp_path, *prompts[shift:], *prompts[:shift]) for shift in (0, 0, 3)]
        said = [process.communicate(timeout=60)[0].splitlines() for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
        assert server.paid == {(prompt, 0): 1 for prompt in prompts}
    texts = [sorted(line.partition(" False ")[2] for line in lines) for lines in said]
    assert texts == [[f"{prompt}, 0 before" for prompt in prompts]] * 3
    assert sum(line.startswith("False") for lines in said for line in lines) == len(prompts)


def test_threads_that_ask_the_same_pay_once(tmp_path: Path) -> None:
    answers: list[Answer] = []
    with serving(lambda asked, earlier: Reply(stream(TEXT), pause=0.005)) as server:
        asking = endpoint(server, tmp_path)
        threads = [threading.Thread(target=lambda: answers.append(asking.ask("hello", 0))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.asked) == 1
    assert [each.text for each in answers] == [TEXT] * 4
    assert asking.spent().now.answers == 1


def test_a_damaged_answer_is_an_error_that_names_it(tmp_path: Path) -> None:
    with serving(lambda asked, earlier: good("yes")) as server:
        asking = endpoint(server, tmp_path)
        asking.ask("hello", 0)
        (path,) = tmp_path.glob("*.json")
        kept = json.loads(path.read_text(encoding="utf-8"))
        assert (kept["asked"]["prompt"], kept["answer"]["text"]) == ("hello", "yes")
        for content in ("", "{}", "[]", '{"answer": {"words": 1}}'):
            path.write_text(content, encoding="utf-8")
            with pytest.raises(InputError, match=f"{path} is no answer .* delete it"):
                asking.ask("hello", 0)
        assert len(server.asked) == 1


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with serving(lambda asked, earlier: good("yes")) as server:
        with pytest.raises(InputError, match="Cannot read"):
            endpoint(server, tmp_path / "file").ask("hello", 0)
        with pytest.raises(InputError, match="Cannot write to"):
            endpoint(server, Path("/proc/nowhere")).ask("hello", 0)
        assert server.asked == []
