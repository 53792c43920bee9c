from __future__ import annotations

import pytest

from stagely.dev.forge.pages import rendered
from tests.stagely.dev.forge.running import RunningForge, Work

COMMENT = """\
<!-- stagely -->
❌ Build failed [View Logs](http://127.0.0.1:8000/logs/env-1)

Commit `0123456789ab`.

**web**: the build ended (exit code 2)

````
RUN make <all> ``` **not bold**
make: *** Error 1
````
"""
PAGE = (
    '<p>❌ Build failed <a rel="noopener noreferrer" href="http://127.0.0.1:8000/logs/env-1">View Logs</a></p>'
    "<p>Commit <code>0123456789ab</code>.</p>"
    "<p><b>web</b>: the build ended (exit code 2)</p>"
    "<pre>RUN make &lt;all&gt; ``` **not bold**\nmake: *** Error 1\n</pre>"
)


def test_a_comment_of_stagely_is_shown_as_meant() -> None:
    assert rendered(COMMENT) == PAGE


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("**<img src=x onerror=y>**", "<p><b>&lt;img src=x onerror=y&gt;</b></p>"),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
        (
            '[a](http://x/"onclick=y)',
            '<p><a rel="noopener noreferrer" href="http://x/&quot;onclick=y">a</a></p>',
        ),
        ("<!-- a --> <b>", "<p>&lt;b&gt;</p>"),
    ],
)
def test_no_comment_brings_its_own_html(typed: str, shown: str) -> None:
    assert rendered(typed) == shown


async def test_a_person_on_this_machine_sees_the_pull_request(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    await forge.http.post("/repos/local/shop/issues/1/comments", json={"body": "✅ Preview ready: http://x.localhost/"})
    del forge.http.headers["authorization"]

    pages = [(await forge.http.get(path)).text for path in ("/", "/local/shop", "/local/shop/pull/1")]

    assert "/local/shop" in pages[0]
    assert "#1 Add a door" in pages[1]
    assert 'href="http://x.localhost/"' in pages[2]


async def test_an_installation_token_opens_no_page(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    token = await forge.token()

    answer = await forge.http.get("/local/shop/pull/1", headers={"Authorization": f"token {token}"})

    assert answer.status_code == 403
