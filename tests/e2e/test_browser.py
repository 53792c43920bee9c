"""A person's browser before a whole system."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import chromium
from tests.e2e.system import ROOT, System

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

GREET_ANN = """new Promise(resolve => {
    const output = document.querySelector("output");
    new MutationObserver(() => resolve(output.textContent)).observe(output, {childList: true});
    document.querySelector("#name").value = "Ann";
    document.querySelector("form").requestSubmit();
})"""


async def test_front_end_reaches_its_back_end_by_the_injected_url(system: System, tmp_path: Path) -> None:
    repository = system.repository(ROOT / "examples" / "split")
    opened = system.run("up", str(repository))
    assert opened.code == 0, opened
    web, api = (opened.data["urls"][service].rstrip("/") for service in ("web", "api"))

    async with chromium(tmp_path) as browser:
        page = await browser.page()
        await page.open(f"{web}/")
        greeting = await page.run(GREET_ANN)

    # The browser shows the page this answer only because the api, too, was given its front end's URL.
    assert (greeting, page.complaints) == ("Hello Ann, this is the api", [])
    assert page.statuses[f"{api}/greetings"] == 200
    assert system.run("close", str(repository)).code == 0
