"""What a new VM is given: rendered the same by every attempt, and good for as long as the VM may take to be made."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import yaml

from stagely.settings import Settings
from stagely.states import VmRole
from stagely.tokens import ENROLMENT_TTL_S, LEEWAY_S, EnrolmentTokens, TokenRefused
from worker import user_data
from workflows.messages import VmLeaseInput

KEY = "5a" * 32
ORDERED_AT = 1_700_000_000.0
ORDER = VmLeaseInput(
    vm_id="vm-1", role=VmRole.PREVIEW, project_id="prj-1", environment_id="env-1", owner_workflow_id="nobody",
    provider="fake", expires_in_s=86_400, create_limit_s=1800,
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    key = tmp_path / "signing-key"
    key.write_text(KEY)
    return Settings.model_validate({"signing_key_file": key})


def token_in(document: str) -> str:
    (settings,) = [f for f in yaml.safe_load(document)["write_files"] if f["path"] == "/etc/stagely/config.json"]
    return str(json.loads(base64.b64decode(settings["content"]))["token"])


def test_every_attempt_of_an_order_renders_the_same(settings: Settings) -> None:
    render = user_data(settings, "ab" * 32)

    assert render(ORDER, ORDERED_AT) == render(ORDER, ORDERED_AT)


def test_a_vm_that_waited_for_quota_all_the_time_it_may_has_the_whole_life_of_its_token_left(
    settings: Settings,
) -> None:
    token = token_in(user_data(settings, "ab" * 32)(ORDER, ORDERED_AT))
    made_at = ORDERED_AT + ORDER.create_limit_s

    assert EnrolmentTokens(KEY).verify(token, made_at + ENROLMENT_TTL_S) == "vm-1"
    with pytest.raises(TokenRefused, match="expired"):
        EnrolmentTokens(KEY).verify(token, made_at + ENROLMENT_TTL_S + LEEWAY_S + 1)
