from __future__ import annotations

from stagely.comments import CommitStatus, Problem, Story, comment_text, commit_status
from stagely.states import EnvironmentState

SHA = "0123456789abcdef0123456789abcdef01234567"
LOGS = "https://stagely.test/logs"


def story(state: EnvironmentState, message: str = "", problem: Problem | None = None) -> Story:
    urls = [("web", "https://abc.preview.test"), ("api", "https://api-abc.preview.test")]
    return Story(state, message, SHA, urls, LOGS, problem)


def test_a_ready_preview_shows_its_urls() -> None:
    assert comment_text(story(EnvironmentState.READY)) == (
        "<!-- stagely -->\n"
        "✅ Preview ready: https://abc.preview.test\n"
        "\n"
        "Commit `0123456789ab`.\n"
        "\n"
        "- web: https://abc.preview.test\n"
        "- api: https://api-abc.preview.test\n"
    )


def test_a_failed_deployment_shows_service_exit_code_and_last_lines() -> None:
    problem = Problem("up", "exited again and again", "api", 3, ("boom", "```", "bang"))

    assert comment_text(story(EnvironmentState.FAILED, "", problem)) == (
        "<!-- stagely -->\n"
        "❌ Deployment failed [View Logs](https://stagely.test/logs)\n"
        "\n"
        "Commit `0123456789ab`.\n"
        "\n"
        "**api**: exited again and again (exit code 3)\n"
        "\n"
        "````\n"
        "boom\n"
        "```\n"
        "bang\n"
        "````\n"
    )


def test_a_failed_build_is_called_one() -> None:
    problem = Problem("build", "RUN make failed", "api", 2)

    assert "❌ Build failed [View Logs]" in comment_text(story(EnvironmentState.FAILED, "", problem))


def test_a_preview_that_is_gone_says_why() -> None:
    text = comment_text(story(EnvironmentState.TERMINATED, "the pull request was closed"))

    assert "🧹 Preview gone: the pull request was closed" in text


def test_the_commit_status_follows_the_state_and_fits_github() -> None:
    ready = commit_status(story(EnvironmentState.READY, "ready"))
    building = commit_status(story(EnvironmentState.BUILDING, "x" * 300))

    assert ready == CommitStatus("success", "ready: ready")
    assert building is not None
    assert building.state == "pending"
    assert len(building.description) == 140


def test_a_preview_that_goes_leaves_the_commits_status_as_it_was() -> None:
    assert commit_status(story(EnvironmentState.TERMINATED)) is None
