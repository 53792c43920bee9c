"""BuildKit's progress as lines, from what buildx 0.13.1 really wrote."""

from pathlib import Path

from agent.rawjson import Decoder, Progress, exit_code

RECORDED = (Path(__file__).parent / "rawjson_failing.txt").read_text()
READABLE = """\
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#2 [internal] load metadata for docker.io/library/python:3-slim
#2 DONE 0.0s
#3 [internal] load .dockerignore
#3 DONE 0.0s
#4 [1/2] FROM docker.io/library/python:3-slim@sha256:bd139f7602d41623082ffd63d012a3efe1263b4d0e2eaca436a1bcf4c97e761c
#4 DONE 0.0s
#5 [2/2] RUN echo one && echo two >&2; printf part; exit 7
#5 one
#5 two
#5 part
#5 ERROR: process "/bin/sh -c echo one && echo two >&2; printf part; exit 7" did not complete successfully: exit code: 7
WARNING: No output specified with remote driver. Build result will only remain in the build cache. To push result \
image into registry use --push or to load image into docker use --load
Dockerfile:2
--------------------
   1 |     FROM python:3-slim
   2 | >>> RUN echo one && echo two >&2; printf part; exit 7
   3 |     \n\
--------------------
ERROR: failed to solve: process "/bin/sh -c echo one && echo two >&2; printf part; exit 7" did not complete \
successfully: exit code: 7
"""


def read(text: str, piece_chars: int) -> tuple[str, Progress]:
    decoder, progress, lines = Decoder(), Progress(), list[str]()
    for at in range(0, len(text), piece_chars):
        for event, line in decoder.feed(text[at : at + piece_chars]):
            lines += progress.event(event) if event is not None else [line or ""]
    assert decoder.finish() == ""
    return "".join(f"{line}\n" for line in lines), progress


def test_a_recorded_failing_build_reads_like_plain_progress() -> None:
    assert read(RECORDED, len(RECORDED))[0] == READABLE


def test_pieces_of_any_size_read_the_same() -> None:
    assert read(RECORDED, 1)[0] == READABLE
    assert read(RECORDED, 17)[0] == READABLE


def test_the_failed_step_knows_its_exit_code_and_last_lines() -> None:
    _, progress = read(RECORDED, 1000)

    failed = progress.failed

    assert failed is not None
    assert failed.name == "[2/2] RUN echo one && echo two >&2; printf part; exit 7"
    assert exit_code(failed.error) == 7
    assert failed.tail == ["one", "two", "part"]


def test_a_missing_cache_is_not_what_failed() -> None:
    progress = Progress()
    cache = {"digest": "1", "name": "importing cache manifest from r/c", "started": "2026-01-01T00:00:00Z"}
    step = {"digest": "2", "name": "RUN false", "started": "2026-01-01T00:00:01Z"}

    lines = progress.event({"vertexes": [cache | {"completed": "2026-01-01T00:00:01Z", "error": "r/c: not found"}]})
    progress.event({"vertexes": [step | {"completed": "2026-01-01T00:00:02Z", "error": "exit code: 1"}]})

    assert lines == ["#1 importing cache manifest from r/c", "#1 no cache yet"]
    assert progress.failed is not None
    assert progress.failed.name == "RUN false"


def test_exports_that_overlap_count_once() -> None:
    progress = Progress()
    image = {"digest": "1", "name": "exporting to image", "started": "2026-01-01T00:00:00.25Z"}
    cache = {"digest": "2", "name": "exporting cache to registry", "started": "2026-01-01T00:00:01Z"}

    progress.event({"vertexes": [image | {"completed": "2026-01-01T00:00:02Z"}]})
    progress.event({"vertexes": [cache | {"completed": "2026-01-01T00:00:03Z"}]})

    assert progress.export_seconds() == 2.75


def test_one_object_per_line_reads_the_same() -> None:
    decoder = Decoder()

    found = list(decoder.feed('{"a":1}\n{"b":{"c":2}}\ntext\n'))

    assert found == [({"a": 1}, None), ({"b": {"c": 2}}, None), (None, "text")]


def test_what_runs_last_is_the_current_step() -> None:
    progress = Progress()

    progress.event({"vertexes": [{"digest": "1", "name": "RUN sleep", "started": "2026-01-01T00:00:00Z"}]})

    assert progress.current == "RUN sleep"


def test_steps_that_came_from_the_cache_are_counted_without_buildkits_own() -> None:
    progress = Progress()
    times = {"started": "2026-01-01T00:00:00Z", "completed": "2026-01-01T00:00:01Z"}
    names = [
        "[internal] load .dockerignore",
        "[1/3] FROM python",
        "[2/3] COPY . .",
        "[3/3] RUN make",
        "exporting to image",
    ]
    cached = {"[2/3] COPY . .": True}

    for name in names:
        progress.event({"vertexes": [times | {"digest": name, "name": name, "cached": cached.get(name, False)}]})

    assert progress.cached_steps == (1, 3)


def test_writing_to_the_registry_is_noticed_when_it_begins() -> None:
    progress = Progress()
    progress.event({"vertexes": [{"digest": "1", "name": "exporting to image"}]})
    before = progress.is_exporting

    progress.event({"vertexes": [{"digest": "1", "name": "exporting to image", "started": "2026-01-01T00:00:00Z"}]})

    assert (before, progress.is_exporting) == (False, True)
