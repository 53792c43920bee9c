"""A person's browser before the edge: TLS, assets, WebSockets, events, large files, and the edge's own pages."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from edge.routes import Route, RouteStatus, encode, key_of
from tests.browser import Browser, chromium, key_digest
from tests.edge.certificates import Pair, write_pair
from tests.edge.conftest import Announce, EdgeProcess, edge_program, ready_route
from tests.edge.website import ASSETS, Website
from tests.stagely.dev.forge.running import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DOMAIN = "preview.test"
LARGE_BYTES = 100 << 20
MOST_GROWTH_BYTES = 16 << 20
SCREENS = {"desktop": (1280, 800), "phone": (360, 740)}
LOGS = "https://stagely.example/e/env1"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return write_pair(tmp_path_factory.mktemp("browser") / "tls", (f"*.{DOMAIN}",))


@pytest.fixture(scope="module")
def edge(valkey_port: int, pair: Pair) -> Iterator[EdgeProcess]:
    """The real program with TLS alone."""
    with edge_program(
        f"redis://127.0.0.1:{valkey_port}/0",
        STAGELY_DOMAIN=DOMAIN,
        STAGELY_EDGE_LISTEN="",
        STAGELY_EDGE_TLS_LISTEN="127.0.0.1:0",
        STAGELY_TLS_CERT=str(pair.certificate),
        STAGELY_TLS_KEY=str(pair.key),
    ) as running:
        yield running


@pytest.fixture(scope="module")
async def browser(edge: EdgeProcess, pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """A browser that finds every preview at this edge and trusts its certificate's key, and no other unknown one."""
    async with chromium(
        tmp_path_factory.mktemp("chromium"),
        f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1:{edge.port}",
        f"--ignore-certificate-errors-spki-list={key_digest(pair.certificate)}",
    ) as running:
        yield running


@pytest.fixture
async def website(tmp_path: Path) -> AsyncIterator[tuple[Website, int]]:
    """A website with a large file, and its port."""
    large = tmp_path / "large.bin"
    noise = random.Random(6)
    with large.open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(noise.randbytes(1 << 20))
    site = Website(large)
    async with serving(site.app, lifespan=False) as url:
        yield site, urlsplit(url).port or 0


@pytest.fixture
async def home(website: tuple[Website, int], announce: Announce) -> str:
    """The website's URL behind the edge."""
    return f"https://{await announce(ready_route(website[1]))}.{DOMAIN}"


def digest_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


async def test_page_and_all_its_assets_load_without_a_complaint(browser: Browser, home: str) -> None:
    page = await browser.page()

    await page.open(f"{home}/")

    assert page.complaints == []
    assert page.statuses == {f"{home}{path}": 200 for path in ASSETS}
    seen = await page.run("""({
        colour: getComputedStyle(document.querySelector("h1")).color,
        size: getComputedStyle(document.querySelector("h1")).fontSize,
        word: document.body.dataset.word,
        image: document.images[0].naturalWidth,
        secure: isSecureContext,
    })""")
    assert seen == {
        "colour": "rgb(1, 2, 3)", "size": "41px", "word": "said by a module", "image": 1, "secure": True
    }  # fmt: skip


async def test_websocket_echoes_text_bytes_and_a_megabyte_and_closes_with_its_code(browser: Browser, home: str) -> None:
    page = await browser.page()
    await page.open(f"{home}/")

    seen = await page.run("""(async () => {
        const socket = new WebSocket(`wss://${location.host}/echo`, ["chat", "talk"]);
        socket.binaryType = "arraybuffer";
        const event = name => new Promise((resolve, reject) => {
            socket.addEventListener(name, resolve, {once: true});
            socket.addEventListener("error", reject, {once: true});
        });
        await event("open");
        const echo = async message => { socket.send(message); return (await event("message")).data; };
        const text = await echo("grüß dich, 世界");
        const bytes = [...new Uint8Array(await echo(new Uint8Array([0, 1, 254, 255])))];
        const million = crypto.getRandomValues(new Uint8Array(65536)).toHex().repeat(8);
        const long = await echo(million) === million;
        socket.close(3001, "enough");
        const {code, wasClean} = await event("close");
        return {protocol: socket.protocol, text, bytes, size: million.length, long, code, wasClean};
    })()""")

    assert seen == {
        "protocol": "chat",
        "text": "grüß dich, 世界",
        "bytes": [0, 1, 254, 255],
        "size": 1 << 20,
        "long": True,
        "code": 3001,
        "wasClean": True,
    }
    assert page.complaints == []


async def test_events_arrive_one_by_one_and_a_new_stream_goes_on_where_the_last_ended(
    browser: Browser, home: str, website: tuple[Website, int]
) -> None:
    page = await browser.page()
    await page.open(f"{home}/")

    # The origin sends no event before the browser has posted that it saw the last one: an edge that gathers, hangs.
    seen = await page.run("""new Promise(resolve => {
        const seen = [], source = new EventSource("/events");
        source.addEventListener("tick", async ({data}) => {
            seen.push(data);
            if (seen.length == 7) { source.close(); resolve(seen); }
            else await fetch(`/seen/${data}`, {method: "POST"});
        });
    })""")

    assert seen == ["1", "2", "3", "4", "5", "6", "7"]
    assert website[0].resumed == ["0", "3", "6"]


async def test_hundred_megabytes_go_up_and_come_down_unchanged(
    browser: Browser, home: str, website: tuple[Website, int], edge: EdgeProcess
) -> None:
    large = website[0].large
    page = await browser.page()
    await page.open(f"{home}/")
    await page.choose_file("input", large)
    before = edge.resident_bytes()

    arrived = await page.run("""(async () => {
        const [file] = document.querySelector("input").files;
        return (await fetch("/upload", {method: "POST", body: file})).text();
    })()""")
    await page.run("document.querySelector('a').click()")
    ended = await browser.downloaded()

    grown = edge.resident_bytes() - before
    saved = browser.downloads / "large.bin"
    assert (large.stat().st_size, ended, page.complaints) == (LARGE_BYTES, "completed", [])
    assert (arrived, digest_of(saved)) == (digest_of(large), digest_of(large))
    assert grown < MOST_GROWTH_BYTES, f"{grown} bytes of memory for files that only pass through"


async def test_cookie_for_the_whole_domain_reaches_no_other_preview(
    browser: Browser, home: str, website: tuple[Website, int], announce: Announce
) -> None:
    other = f"https://{await announce(ready_route(website[1]))}.{DOMAIN}"
    page = await browser.page()

    answers = []
    for url in (home, home, other):
        await page.open(f"{url}/cookie")
        answers.append(await page.run("document.body.innerText"))

    assert answers == ["", "session=secret", ""]


async def test_building_page_turns_into_the_preview_by_itself(
    browser: Browser, website: tuple[Website, int], announce: Announce, redis: Redis
) -> None:
    label = await announce(Route(RouteStatus.BUILDING, "shop", "local", 7, "env1", phase="building 2 images"))
    page = await browser.page()
    await page.open(f"https://{label}.{DOMAIN}/")
    before = await page.run("document.title")

    await redis.set(key_of(label), encode(ready_route(website[1])))
    await page.reloaded()

    assert before == "The preview of pull request #7 is being built"
    assert await page.run("document.title") == "A shop"


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("name", ["building", "failed", "not-found"])
async def test_page_of_the_edge_fits_the_screen_in_light_and_dark(
    browser: Browser, announce: Announce, tmp_path: Path, name: str, screen: str
) -> None:
    width, height = SCREENS[screen]
    page = await browser.page()
    backgrounds = []

    for scheme in ("light", "dark"):
        await page.look(width=width, height=height, scheme=scheme)
        await page.open(f"https://{await label_of(name, announce)}.{DOMAIN}/")
        await page.screenshot(tmp_path / f"{name}-{screen}-{scheme}.png")
        seen = await page.run("""({
            width: document.documentElement.scrollWidth,
            height: document.documentElement.scrollHeight,
            background: getComputedStyle(document.body).backgroundColor,
        })""")
        backgrounds.append(seen.pop("background"))
        assert seen == {"width": width, "height": height}  # Nothing to scroll, either way.

    assert backgrounds == ["rgb(250, 250, 248)", "rgb(16, 19, 22)"]
    policy = [said for said in page.complaints if "status of" not in said]
    assert policy == []


async def label_of(name: str, announce: Announce) -> str:
    """A host that shows this page, with words as they occur."""
    if name == "building":
        return await announce(
            Route(
                RouteStatus.BUILDING, "shop", "local", 1234, "env1",
                phase="building web, api and worker", log_url=LOGS, since=time.time() - 42
            )
        )  # fmt: skip
    if name == "failed":
        said = (
            "Build of web failed with exit code 3: RUN npm ci --no-audit --no-fund && npm run build ended;"
            " /srv/app/node_modules/@shop/very-long-package-name-without-a-place-to-break/dist/index.production.min.js"
        )
        return await announce(Route(RouteStatus.FAILED, "shop", "local", 1234, "env1", phase=said, log_url=LOGS))
    return "0123456789abcdefghijk"
