"""A person's browser before a whole system."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import chromium
from tests.e2e.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORIES = Path(__file__).parent / "repos"


async def test_front_end_reaches_its_back_end_by_the_injected_url(system: System, tmp_path: Path) -> None:
    repository = system.repository(REPOSITORIES / "two-urls")
    opened = system.run("up", str(repository))
    assert opened.code == 0, opened
    web, api = (opened.data["urls"][service].rstrip("/") for service in ("web", "api"))

    async with chromium(tmp_path) as browser:
        page = await browser.page()
        await page.open(f"{web}/")
        greeting = await page.run("""new Promise(resolve => {
            const output = document.querySelector("output");
            const look = () => output.textContent == "asking" || resolve(output.textContent);
            new MutationObserver(look).observe(output, {childList: true, characterData: true, subtree: true});
            look();
        })""")
        # The api in turn was given its front end's URL, and answers that page's scripts alone.
        await page.open(f"{api}/")
        allowed = await page.run("fetch('/').then(answer => answer.headers.get('access-control-allow-origin'))")

    assert (greeting, page.complaints) == ("Hello Ann, this is the api", [])
    assert page.statuses[f"{api}/greetings"] == 200
    assert allowed == web
    assert system.run("close", str(repository)).code == 0
